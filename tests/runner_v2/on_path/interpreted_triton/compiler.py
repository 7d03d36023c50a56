"""The compiler that Triton looks for in a backend."""

from typing import Any

from triton.backends.compiler import BaseBackend


class NoCompiler(BaseBackend):
    """Fits no target, so that nothing is ever compiled with it."""

    @staticmethod
    def supports_target(target: Any) -> bool:
        """Never."""
        return False

    def hash(self) -> str:
        """Of compiled kernels, of which there are none."""
        return "interpreted"

    def parse_options(self, options: dict[str, Any]) -> Any:
        """Of compiled kernels, of which there are none."""
        raise NotImplementedError("set TRITON_INTERPRET=1")

    def add_stages(self, stages: dict[str, Any], options: Any, language: Any) -> None:
        """Of compiled kernels, of which there are none."""
        raise NotImplementedError("set TRITON_INTERPRET=1")

    def load_dialects(self, context: Any) -> None:
        """Of compiled kernels, of which there are none."""
        raise NotImplementedError("set TRITON_INTERPRET=1")

    def get_module_map(self) -> dict[str, Any]:
        """Of compiled kernels, of which there are none."""
        raise NotImplementedError("set TRITON_INTERPRET=1")
