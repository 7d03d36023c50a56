"""CUDA graphs on a CPU: what runs while one is captured is noted, and run again when replayed.

As in a captured graph no Python of the model runs at replay: the same operators and kernels, of the
same sizes, on the same tensors. Whatever a step computes anew instead of writing it to where it was
at capture is missed, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import GridExecutor


class RecordedGraph(TorchDispatchMode):
    """In place of `torch.cuda.CUDAGraph` and of its capture."""

    def __init__(self) -> None:
        super().__init__()
        self.replays = 0
        self._runs: list[Callable[[], None]] = []
        self._made: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note it with what it read and wrote."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        given = {_place(one) for one in _tensors((args, kwargs))}
        new = [(i, one) for i, one in enumerate(_tensors(made)) if _place(one) not in given]

        self._made += [one for _, one in new]

        def again() -> None:
            found = _tensors(func(*args, **kwargs))
            for index, one in new:
                one.copy_(found[index])

        self._runs.append(again)
        return made

    def noting(self, launch: Callable[..., None]) -> Callable[..., None]:
        """Triton's `launch`, which also notes what it ran; its own operators are part of it."""

        def noted(*args: Any, **kwargs: Any) -> None:
            def run() -> None:
                with _disable_current_modes():
                    launch(*args, **kwargs)

            run()
            self._runs.append(run)

        return noted

    def made(self) -> list[torch.Tensor]:
        """What it made: all that it wrote but for what was there before."""
        return self._made

    def replay(self) -> None:
        """Everything again, in its order."""
        self.replays += 1
        for run in self._runs:
            run()


@contextmanager
def capturing(graph: RecordedGraph, *_: Any, **__: Any) -> Iterator[None]:
    """In place of `torch.cuda.graph`."""
    with pytest.MonkeyPatch.context() as patch, graph:
        patch.setattr(GridExecutor, "__call__", graph.noting(GridExecutor.__call__))
        yield


def _tensors(values: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, torch.Tensor)]


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
