"""Lets the worker compute on all cores of a small CPU.

Symptom: vLLM keeps one core of a CPU free for its scheduler, also of two; the worker then computes
on half of them, and questions over HTTP take 1.6 to 1.7 times as long (benchmarks/LOG.md).
Can go when vLLM keeps cores free only where there are many.
"""

from __future__ import annotations

import os

RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"
BOUND = "VLLM_CPU_OMP_THREADS_BIND"
FEW_CORES = 4


def use_all_of_few_cores() -> None:
    """Keep no core free on a machine with up to four; what the user has set stays.

    To be called before the engine's process starts, which takes it over from the environment.
    """
    if len(os.sched_getaffinity(0)) <= FEW_CORES and BOUND not in os.environ:
        os.environ.setdefault(RESERVED, "0")
