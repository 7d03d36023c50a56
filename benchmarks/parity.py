"""Do the attention backends of a GPU give the same answers, staged and dense?

    python -m benchmarks.parity [--backends FLASH_ATTN TRITON_ATTN] [--dtype bfloat16]

The checkpoint is LISA-mini, asked about held-out scenes: what it answers and marks hangs on
attention to the right tokens, which a random model's masks hardly do. Each backend runs five
engines on the same photos, two questions about each: `dense`; `whole`, stages that keep every
token, whose masks must be those of dense; `csp`; `unshared`, csp whose questions compute their
photo each for itself, with the same masks; and `captured`, csp that decodes from CUDA graphs, where
the other engines run eagerly. Backends must agree with each other, and dense with plain
transformers (`benchmarks/baselines.py`). csp must *not* agree with dense: it leaves tokens out, and
if that did not show, nothing else would. `iou` is the mean mask IoU with the row named in
`against`, of a forced mask and of those of a written answer, 0 for one that only one of them has;
transformers is asked for forced masks only. `same_tokens` is how much of the greedy answers is the
same up to the first other token. `replays` are those of graphs while `captured` decoded. `waits`:
where the engine's steps made the host wait for the GPU while it answered, and how often. `off`: an
IoU is on the wrong side of `--least`, the tokens of `captured` are below `--least-tokens`, or it
failed or replayed nothing on a GPU; the exit code is 1 if a row
is, unless `--report-only` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.calls import calls, opened
from benchmarks.cells import report_cell, run_cell
from benchmarks.dtype_options import add_dtype_option
from benchmarks.overlap import overlaps
from benchmarks.report import report_rows
from benchmarks.systems import POLICIES
from benchmarks.waits import CHECKED, counted_waits, told
from vllm_csp.mini import MINI

if TYPE_CHECKING:
    from vllm_csp.serving.segmenter import Segmenter

QUESTIONS = 6
PER_PHOTO = 2
MOST_TOKENS = 12
EAGER = ("dense", "whole", "csp", "unshared")
CAPTURED = "captured"


def main(argv: Sequence[str] | None = None) -> None:
    """Run all engines, compare, and say by the exit code whether all agree."""
    arguments = parse(argv)
    if arguments.cell:
        report_cell(measure(arguments))
        return
    wanted = [("transformers", ""), *product(EAGER, arguments.backends)]
    names = [f"{engine} {backend}".strip() for engine, backend in wanted]
    with ThreadPoolExecutor(arguments.at_once) as pool:
        found = pool.map(lambda one: _ask_in_a_process(*one, arguments), wanted)
        answers = dict(zip(names, found, strict=True))
        rows = [_row(name, other, answers) for name, other in pairs(arguments.backends)]
        # Last: what has been tried least.
        captured = pool.map(lambda one: _captured_row(one, answers, arguments), arguments.backends)
        rows += captured
    import torch

    rows = [{**row, "off": is_off(row, arguments, torch.cuda.is_available())} for row in rows]
    names = ("dtype", "least", "least_tokens")
    setting = {name: getattr(arguments, name) for name in names}
    setting["checkpoint"] = Path(arguments.checkpoint).name
    report_rows(arguments.result, "parity of attention backends", rows, setting)
    sys.exit(any(row["off"] for row in rows) and not arguments.report_only)


def pairs(backends: Sequence[str]) -> list[tuple[str, str]]:
    """What is compared with what."""
    found = []
    for backend in backends:
        found += [(f"dense {backend}", "transformers"), (f"whole {backend}", f"dense {backend}")]
        found += [(f"unshared {backend}", f"csp {backend}"), (f"csp {backend}", f"dense {backend}")]
        if backend != backends[0]:
            found.append((f"csp {backend}", f"csp {backends[0]}"))
    return found


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Per question a forced mask and, of our engines, an answer's masks and tokens, made here."""
    checkpoint = arguments.checkpoint
    asked = opened(calls(QUESTIONS, PER_PHOTO, 0, scenes=True))
    if arguments.cell == "transformers":
        import torch

        from benchmarks.baselines import HuggingFace, as_json

        device = "cuda" if torch.cuda.is_available() else "cpu"
        replies = HuggingFace(checkpoint, arguments.dtype, device).ask(asked, 1, force=True)
        masks = [mask for reply in replies for mask in as_json(reply.masks)]
        return [{"masks": [mask], "tokens": []} for mask in masks]
    from vllm_csp.serving.segmenter import Question, Segmenter

    # In this process, so that replays can be counted.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    [backend] = arguments.backends
    engine = Segmenter(
        checkpoint,
        dtype=arguments.dtype,
        max_model_len=512,
        max_num_seqs=8,
        enforce_eager=arguments.cell != CAPTURED,
        kv_cache_memory_bytes=1 << 28,
        # Several may be on the GPU at once.
        gpu_memory_utilization=0.1,
        # It would build kernels for all kinds of sampling before it answers.
        kernel_config={"enable_jit_warmup": False},
        additional_config={"csp": settings(arguments.cell, layers_of(checkpoint))},
        **({} if backend == "-" else {"attention_backend": backend}),
    )
    forced = engine.ask([Question(text, image, mode="force") for text, image in asked])
    replays = _counted_replays(engine)
    with counted_waits() as waits:
        free = engine.ask([Question(text, image, max_tokens=MOST_TOKENS) for text, image in asked])
    seen = {"replays": len(replays), "waits": told(waits)}
    return [
        {"masks": [*one.masks, *other.masks], "tokens": other.token_ids, **seen}
        for one, other in zip(forced, free, strict=True)
    ]


def _counted_replays(engine: Segmenter) -> list[Any]:
    """Fills with the shapes of the CUDA graphs that are replayed from now on."""
    core: Any = engine.llm.llm_engine.engine_core
    runner = core.engine_core.model_executor.driver_worker.worker.model_runner
    replayed: list[Any] = []
    manager = getattr(runner, "cudagraph_manager", None)
    if manager is not None:
        run = manager.run_fullgraph

        def counting(shape: Any) -> Any:
            replayed.append(shape)
            return run(shape)

        manager.run_fullgraph = counting
    return replayed


def layers_of(checkpoint: str) -> int:
    """Of its language model."""
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    return int(config["num_hidden_layers"])


def settings(engine: str, layers: int) -> dict[str, Any]:
    """Of `dense`, of csp with and without sharing, and of csp's stages with every token."""
    served = {"dense": "dense", "unshared": "csp-65-unshared"}
    if engine != "whole":
        return POLICIES[served.get(engine, "csp-65")]
    from vllm_csp.evaluation.policy_run import engine_section
    from vllm_csp.tokens import policy

    return engine_section(policy("csp", layers, 256, cluster_tokens=256, prune_tokens=256))


def _ask_in_a_process(
    engine: str, backend: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    cell = ["--cell", engine, "--backends", backend or "-", "--dtype", arguments.dtype]
    cell += ["--checkpoint", arguments.checkpoint]
    answers: list[dict[str, Any]] = run_cell("benchmarks.parity", cell, CHECKED)
    return answers


def _row(name: str, other: str, answers: dict[str, list[Any]]) -> dict[str, Any]:
    asked = list(zip(answers[name], answers[other], strict=True))
    ious = [iou for pair in asked for iou in _ious(*(one["masks"] for one in pair))]
    tokens = [same_tokens(one["tokens"], two["tokens"]) for one, two in asked]
    return {
        "engine": name,
        "against": other,
        "masks": len(ious),
        "iou": round(sum(ious) / len(ious), 4),
        "least_iou": round(min(ious), 4),
        # Transformers is asked for masks only.
        "same_tokens": None if other == "transformers" else round(sum(tokens) / len(tokens), 4),
        "replays": 0,
        "waits": answers[name][0].get("waits", ""),
        "wrong": "",
    }


def _ious(one: list[Any], other: list[Any]) -> list[float]:
    """Of the masks of a question; of a forced one only, if a side was asked for no more."""
    if min(len(one), len(other)) == 1:
        one, other = one[:1], other[:1]
    unmatched = abs(len(one) - len(other))
    both = min(len(one), len(other))
    return [*overlaps(one[:both], other[:both]), *[0.0] * unmatched]


def _captured_row(
    backend: str, answers: dict[str, list[Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """csp that decodes from graphs, against csp; `wrong` says why if it could not run."""
    name, other = f"{CAPTURED} {backend}", f"csp {backend}"
    try:
        found = _ask_in_a_process(CAPTURED, backend, arguments)
    except SystemExit as failure:
        compared = dict.fromkeys(("iou", "least_iou", "same_tokens"))
        row = {"engine": name, "against": other, "masks": 0, **compared, "replays": 0, "waits": ""}
        return {**row, "wrong": str(failure)[-500:]}
    return {**_row(name, other, {**answers, name: found}), "replays": found[0]["replays"]}


def same_tokens(one: Sequence[int], other: Sequence[int]) -> float:
    """The share of the longer answer that is the same in both from the start, 0 to 1."""
    equal = [a == b for a, b in zip(one, other, strict=False)]
    same = equal.index(False) if False in equal else len(equal)
    return same / max(len(one), len(other)) if one or other else 1.0


def is_off(row: dict[str, Any], arguments: argparse.Namespace, with_graphs: bool) -> bool:
    """Whether a row says that two engines differ; with_graphs: decoding can be captured here."""
    if row["wrong"]:
        return True
    kinds = (row["engine"].split()[0], row["against"].split()[0])
    if (row["iou"] < arguments.least) != (kinds == ("csp", "dense")):
        return True
    if not row["engine"].startswith(CAPTURED):
        return False
    replayed_nothing = with_graphs and row["replays"] == 0
    return replayed_nothing or row["same_tokens"] < arguments.least_tokens


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", nargs="+", default=["FLASH_ATTN", "TRITON_ATTN"])
    add_dtype_option(parser)
    parser.add_argument("--checkpoint", default=str(MINI), help="Default: LISA-mini.")
    parser.add_argument("--least", type=float, default=0.9)
    parser.add_argument("--least-tokens", type=float, default=0.5)
    parser.add_argument(
        "--report-only", action="store_true", help="End with 0 also when engines differ."
    )
    parser.add_argument("--at-once", type=int, default=1, help="Engines that run side by side.")
    parser.add_argument("--result", default="parity", help="Name of the files.")
    parser.add_argument("--cell", choices=["transformers", *EAGER, CAPTURED])
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
