"""Do the attention backends of a GPU give the same answers, staged and dense?

    python -m benchmarks.parity [--backends FLASH_ATTN TRITON_ATTN] [--dtype bfloat16]

Each backend runs four engines on the same photos, two questions about each: `dense`; `whole`,
stages that keep every token, whose masks must be those of dense; `csp`; and `unshared`, csp whose
questions compute their photo each for itself, with the same masks. Backends must agree with each
other, and dense with plain transformers (`benchmarks/baselines.py`). `iou` is the mean mask IoU
with the row named in `against`; a random checkpoint's masks are fine-grained noise, so rounding
shows more than in a trained one's. The exit code is 1 if one is below `--least`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.calls import calls, opened
from benchmarks.cells import report_cell, run_cell
from benchmarks.checkpoint import Size, write_checkpoint
from benchmarks.dtype_options import add_dtype_option
from benchmarks.overlap import overlaps
from benchmarks.report import report_rows
from benchmarks.systems import POLICIES

QUESTIONS = 6
PER_PHOTO = 2
ENGINES = ("dense", "whole", "csp", "unshared")


def main(argv: Sequence[str] | None = None) -> None:
    """Run all engines, compare, and say by the exit code whether all agree."""
    arguments = parse(argv)
    if arguments.cell:
        report_cell(measure(arguments))
        return
    masks: dict[str, list[Any]] = {}
    for backend in ("", *arguments.backends):
        for engine in ENGINES if backend else ("transformers",):
            cell = ["--cell", engine, "--backends", backend or "-", "--dtype", arguments.dtype]
            cell += ["--layers", str(arguments.layers), "--hidden", str(arguments.hidden)]
            masks[f"{engine} {backend}".strip()] = run_cell("benchmarks.parity", cell)
    rows = [_row(name, other, masks) for name, other in pairs(arguments.backends)]
    names = ("dtype", "layers", "hidden", "least")
    setting = {name: getattr(arguments, name) for name in names}
    report_rows(arguments.result, "parity of attention backends", rows, setting)
    sys.exit(any(row["iou"] < arguments.least for row in rows))


def pairs(backends: Sequence[str]) -> list[tuple[str, str]]:
    """What is compared with what."""
    found = []
    for backend in backends:
        found += [(f"dense {backend}", "transformers"), (f"whole {backend}", f"dense {backend}")]
        found.append((f"unshared {backend}", f"csp {backend}"))
        if backend != backends[0]:
            found.append((f"csp {backend}", f"csp {backends[0]}"))
    return found


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The forced masks of one engine, in this process."""
    checkpoint = str(write_checkpoint(Size(arguments.layers, arguments.hidden)))
    asked = opened(calls(QUESTIONS, PER_PHOTO, 0))
    if arguments.cell == "transformers":
        import torch

        from benchmarks.baselines import HuggingFace, as_json

        device = "cuda" if torch.cuda.is_available() else "cpu"
        replies = HuggingFace(checkpoint, arguments.dtype, device).ask(asked, 1, force=True)
        return [mask for reply in replies for mask in as_json(reply.masks)]
    from vllm_csp.serving.segmenter import Question, Segmenter

    [backend] = arguments.backends
    engine = Segmenter(
        checkpoint,
        dtype=arguments.dtype,
        max_model_len=512,
        max_num_seqs=8,
        enforce_eager=True,
        kv_cache_memory_bytes=1 << 28,
        additional_config={"csp": settings(arguments.cell, arguments.layers)},
        **({} if backend == "-" else {"attention_backend": backend}),
    )
    answers = engine.ask([Question(text, image, mode="force") for text, image in asked])
    return [mask for answer in answers for mask in answer.masks]


def settings(engine: str, layers: int) -> dict[str, Any]:
    """Of `dense`, of csp with and without sharing, and of csp's stages with every token."""
    served = {"dense": "dense", "csp": "csp-65", "unshared": "csp-65-unshared"}
    if engine in served:
        return POLICIES[served[engine]]
    from vllm_csp.tokens import policy

    whole = policy("csp", layers, 256, cluster_tokens=256, prune_tokens=256)
    return {"policy": "custom", **whole.model_dump(mode="json", include={"stages", "scatter"})}


def _row(name: str, other: str, masks: dict[str, list[Any]]) -> dict[str, Any]:
    ious = overlaps(masks[name], masks[other])
    return {
        "engine": name,
        "against": other,
        "masks": len(ious),
        "iou": round(sum(ious) / len(ious), 4),
        "least_iou": round(min(ious), 4),
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", nargs="+", default=["FLASH_ATTN", "TRITON_ATTN"])
    add_dtype_option(parser)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--least", type=float, default=0.9)
    parser.add_argument("--result", default="parity", help="Name of the files.")
    parser.add_argument("--cell", choices=["transformers", *ENGINES])
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
