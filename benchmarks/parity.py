"""Do the attention backends of a GPU give the same answers, staged and dense?

    python -m benchmarks.parity [--backends FLASH_ATTN TRITON_ATTN] [--dtype bfloat16]

Each backend runs five engines on the same photos, two questions about each: `dense`; `whole`,
stages that keep every token, whose masks must be those of dense; `csp`; `unshared`, csp whose
questions compute their photo each for itself, with the same masks; and `captured`, csp that decodes
from CUDA graphs, where the other engines run eagerly. Backends must agree with each
other, and dense with plain transformers (`benchmarks/baselines.py`). `iou` is the mean mask IoU
with the row named in `against`; a random checkpoint's masks are fine-grained noise, so rounding
shows more than in a trained one's. `same_tokens` is how much of the greedy answers is the same up
to the first other token; one that rounding has turned makes all behind it different. The exit code
is 1 if an IoU is below `--least`, or the tokens of `captured` below `--least-tokens`.
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
MOST_TOKENS = 12
ENGINES = ("dense", "whole", "csp", "unshared", "captured")


def main(argv: Sequence[str] | None = None) -> None:
    """Run all engines, compare, and say by the exit code whether all agree."""
    arguments = parse(argv)
    if arguments.cell:
        report_cell(measure(arguments))
        return
    answers: dict[str, list[Any]] = {}
    for backend in ("", *arguments.backends):
        for engine in ENGINES if backend else ("transformers",):
            cell = ["--cell", engine, "--backends", backend or "-", "--dtype", arguments.dtype]
            cell += ["--layers", str(arguments.layers), "--hidden", str(arguments.hidden)]
            answers[f"{engine} {backend}".strip()] = run_cell("benchmarks.parity", cell)
    rows = [_row(name, other, answers) for name, other in pairs(arguments.backends)]
    names = ("dtype", "layers", "hidden", "least", "least_tokens")
    setting = {name: getattr(arguments, name) for name in names}
    report_rows(arguments.result, "parity of attention backends", rows, setting)
    sys.exit(any(_is_off(row, arguments) for row in rows))


def pairs(backends: Sequence[str]) -> list[tuple[str, str]]:
    """What is compared with what."""
    found = []
    for backend in backends:
        found += [(f"dense {backend}", "transformers"), (f"whole {backend}", f"dense {backend}")]
        found += [(f"{one} {backend}", f"csp {backend}") for one in ("unshared", "captured")]
        if backend != backends[0]:
            found.append((f"csp {backend}", f"csp {backends[0]}"))
    return found


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Per question forced mask and, of our engines, tokens of an answer; in this process."""
    checkpoint = str(write_checkpoint(Size(arguments.layers, arguments.hidden)))
    asked = opened(calls(QUESTIONS, PER_PHOTO, 0))
    if arguments.cell == "transformers":
        import torch

        from benchmarks.baselines import HuggingFace, as_json

        device = "cuda" if torch.cuda.is_available() else "cpu"
        replies = HuggingFace(checkpoint, arguments.dtype, device).ask(asked, 1, force=True)
        masks = [mask for reply in replies for mask in as_json(reply.masks)]
        return [{"mask": mask, "tokens": []} for mask in masks]
    from vllm_csp.serving.segmenter import Question, Segmenter

    [backend] = arguments.backends
    engine = Segmenter(
        checkpoint,
        dtype=arguments.dtype,
        max_model_len=512,
        max_num_seqs=8,
        enforce_eager=arguments.cell != "captured",
        kv_cache_memory_bytes=1 << 28,
        additional_config={"csp": settings(arguments.cell, arguments.layers)},
        **({} if backend == "-" else {"attention_backend": backend}),
    )
    forced = engine.ask([Question(text, image, mode="force") for text, image in asked])
    free = engine.ask([Question(text, image, max_tokens=MOST_TOKENS) for text, image in asked])
    return [
        {"mask": one.masks[0], "tokens": other.token_ids}
        for one, other in zip(forced, free, strict=True)
    ]


def settings(engine: str, layers: int) -> dict[str, Any]:
    """Of `dense`, of csp with and without sharing, and of csp's stages with every token."""
    served = {"dense": "dense", "unshared": "csp-65-unshared"}
    if engine != "whole":
        return POLICIES[served.get(engine, "csp-65")]
    from vllm_csp.tokens import policy

    whole = policy("csp", layers, 256, cluster_tokens=256, prune_tokens=256)
    return {"policy": "custom", **whole.model_dump(mode="json", include={"stages", "scatter"})}


def _row(name: str, other: str, answers: dict[str, list[Any]]) -> dict[str, Any]:
    pairs = list(zip(answers[name], answers[other], strict=True))
    ious = overlaps([one["mask"] for one, _ in pairs], [one["mask"] for _, one in pairs])
    tokens = [same_tokens(one["tokens"], two["tokens"]) for one, two in pairs if two["tokens"]]
    return {
        "engine": name,
        "against": other,
        "masks": len(ious),
        "iou": round(sum(ious) / len(ious), 4),
        "least_iou": round(min(ious), 4),
        "same_tokens": round(sum(tokens) / len(tokens), 4) if tokens else None,
    }


def same_tokens(one: Sequence[int], other: Sequence[int]) -> float:
    """The share of the longer answer that is the same in both from the start, 0 to 1."""
    equal = [a == b for a, b in zip(one, other, strict=False)]
    same = equal.index(False) if False in equal else len(equal)
    return same / max(len(one), len(other))


def _is_off(row: dict[str, Any], arguments: argparse.Namespace) -> bool:
    captured = row["engine"].startswith("captured ")
    too_early = captured and row["same_tokens"] < arguments.least_tokens
    return row["iou"] < arguments.least or too_early


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
    parser.add_argument("--least-tokens", type=float, default=0.5)
    parser.add_argument("--result", default="parity", help="Name of the files.")
    parser.add_argument("--cell", choices=["transformers", *ENGINES])
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
