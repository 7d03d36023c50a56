"""Engines inside the test's process, which start in two seconds instead of twenty.

Those whose layers have the same sizes must compute on equally many threads: vLLM keeps oneDNN's
matrix products by size for as long as the process lives, made for the threads of the first one;
with fewer they leave rows out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from vllm.triton_utils import dispatcher

from vllm_csp.serving.segmenter import Segmenter


@contextmanager
def in_process(checkpoint: str, **engine_args: Any) -> Iterator[Segmenter]:
    """`Segmenter` with its engine core and worker in reach; nothing of it is left behind."""
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # vLLM collects eight times over, most of the time that a small engine takes.
        patch.setattr(gc, "collect", lambda *args: 0)
        patch.setattr(dispatcher, "register_kernels", register_new(dispatcher.register_kernels))
        segmenter = Segmenter(checkpoint, **engine_args)
        # vLLM's CPU worker has put a function there that logs a warning at every call.
        torch.set_num_threads = lambda _: None  # type: ignore[assignment]
        try:
            yield segmenter
        finally:
            segmenter.close()
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)
    gc.unfreeze()
    gc.collect()


def register_new(register: Callable[[Mapping[str, Any]], None]) -> Callable[..., None]:
    """vLLM puts the CPU's kernels in place of Triton's for every engine, around those before it."""

    def register_once(overrides: Mapping[str, Any]) -> None:
        new = {name: one for name, one in overrides.items() if name not in dispatcher._registry}
        if new:
            register(new)

    return register_once
