"""The driver that Triton looks for in a backend."""

from typing import Any

import torch
from triton.backends.driver import DriverBase


class InterpretedDriver(DriverBase):
    """A device that is there where no other is, and runs nothing itself."""

    @classmethod
    def is_active(cls) -> bool:
        """Triton wants exactly one."""
        return not torch.cuda.is_available()

    def get_active_torch_device(self) -> torch.device:
        """Where the interpreter's tensors are."""
        return torch.device("cpu")

    def get_current_target(self) -> Any:
        """Only compiled kernels have one."""
        raise NotImplementedError("set TRITON_INTERPRET=1")

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Only launchers of compiled kernels ask."""
        raise NotImplementedError("set TRITON_INTERPRET=1")

    def get_benchmarker(self) -> Any:
        """Only the tuning of compiled kernels asks."""
        raise NotImplementedError("set TRITON_INTERPRET=1")
