"""The options that say in which precision a benchmark computes."""

from __future__ import annotations

import argparse
import os

PRECISIONS = ["bfloat16", "float32"]


def add_dtype_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """One precision: what an engine would choose for a checkpoint in bf16."""
    parser.add_argument(
        "--dtype", default=usual_dtypes()[0], choices=PRECISIONS, help="Here: %(default)s."
    )


def add_dtypes_option(parser: argparse.ArgumentParser) -> None:
    """Several: those that this machine has instructions for; fp16 only when asked for."""
    choices = [*PRECISIONS, "float16"]
    parser.add_argument("--dtypes", nargs="+", default=usual_dtypes(), choices=choices)


def usual_dtypes() -> list[str]:
    """Those of `PRECISIONS` that this machine has instructions for."""
    import torch

    from vllm_csp.cpu_dtypes import has_instructions

    # As vLLM has it: torch's own check would forbid CUDA to the processes that vLLM forks.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if torch.cuda.is_available():
        return PRECISIONS
    return [name for name in PRECISIONS if has_instructions(getattr(torch, name))]
