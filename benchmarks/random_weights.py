"""Weights made up where a hollow checkpoint is loaded: random ones that answer with a mask.

vLLM's own `--load-format dummy` writes numbers within 0.001 into every tensor, norms too; such a
model hardly ever says `[SEG]`, so nothing would be decoded and a benchmark would measure answers
without masks. Here layers keep the size of what goes through them, and the model says what the
checkpoint's `answer.json` asks for. `plugin/` beside this file, on the path, makes the format known
to vLLM in all of a server's processes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LOAD_FORMAT = "csp_random"
HERE = Path(__file__).resolve().parent
PLUGIN = "vllm_csp_benchmarks"
ANSWER = "answer.json"


def register() -> None:
    """Make `--load-format csp_random` known to vLLM."""
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    class RandomWeights(BaseModelLoader):
        """Fills every tensor of a model."""

        def download_model(self, model_config: Any) -> None:
            """There is nothing to download."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            """Random weights, the same for every policy."""
            make_up(model.state_dict(), answer_of(Path(model_config.model)))

    register_model_loader(LOAD_FORMAT)(RandomWeights)


def loading() -> dict[str, str]:
    """The environment of processes that shall know the format."""
    paths = [str(HERE / "plugin"), str(HERE.parent), os.environ.get("PYTHONPATH")]
    # `vllm-csp serve` has no others than are named.
    named = os.environ.get("VLLM_PLUGINS") or "vllm_csp"
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "VLLM_PLUGINS": f"{named},{PLUGIN}",
    }


def answer_of(folder: Path) -> list[int]:
    """The ids that a hollow checkpoint's model is to say, after the one that ends a prompt."""
    ids: list[int] = json.loads((folder / ANSWER).read_text())
    return ids


def make_up(state: Mapping[str, Tensor], answer: Sequence[int]) -> None:
    """Fill the tensors of a whole LISA, whatever the prefixes of their names."""
    import torch

    from vllm_csp.standin import teach

    for name, tensor in state.items():
        if tensor.is_floating_point():
            fill(name, tensor)
    [table] = _ending(state, "embed_tokens.weight")
    [head] = _ending(state, "lm_head.weight")
    teach(table, head, answer, torch.Generator().manual_seed(0))


def fill(name: str, tensor: Tensor) -> None:
    """Numbers that depend on name, shape and device alone.

    Norms scale by 1, biases are 0, rows of matrices have length 1: what goes through a layer keeps
    its size.
    """
    import torch

    generator = torch.Generator(tensor.device).manual_seed(zlib.crc32(name.encode()))
    if name.endswith("gaussian_matrix"):  # of SAM's positions
        tensor.normal_(generator=generator)
    elif tensor.dim() > 1:
        row = tensor.numel() // len(tensor)
        tensor.normal_(std=row**-0.5, generator=generator)
    else:
        tensor.fill_(0 if name.endswith("bias") else 1)


def _ending(state: Mapping[str, Tensor], end: str) -> Iterable[Tensor]:
    return [tensor for name, tensor in state.items() if name.endswith(end)]
