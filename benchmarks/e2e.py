"""Questions per second through HTTP, against what people run today, on the same weights.

    vllm-csp bench e2e [--systems reference huggingface dense csp-65 ...] [--concurrency 1 4 16 64]
                       [--per-image 1 8] [--mode force|generate] [--checkpoint DIR]

`reference`: LISA's own loop, and `huggingface`: `generate` with KV cache in a batch of as many
questions as there are clients (`benchmarks/baselines.py`); both in a process without a server.
`dense` and the policies: a server each, asked by as many clients as the row says; one call of
/v1/segment has one photo and `per_image` questions. `smaller-image`: dense, with an image tower
that takes fewer pixels, so that its tokens are about what csp-65 has on average. `dense@512`, and
any other so: SAM sees photos of 512 pixels (`sam_image_size`). `over_reference` is over the
reference as it is published, `over_small_reference` over `reference@512`. No photo is sent
twice, so one question per image reuses nothing; eight per image show what reuse gives
(`over_alone`: questions per second over those of the row with one). `iou`: least mask IoU with
those of `dense`, over questions that got as many masks; 1 for the baselines but for rounding, lower
for policies. `--scenes` asks about held-out scenes, which LISA-mini understands
(`--checkpoint vllm_csp/mini`), instead of pictures of noise: `giou` is then each system's accuracy.
The model is random and `--layers` x `--hidden` large if no checkpoint is given. The last line on
stdout is one JSON document; rows go to benchmarks/results/e2e.csv.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.calls import Mask, checked_calls
from benchmarks.ceiling import Model, llm_decode, llm_prefill, measured_rates, print_card
from benchmarks.cells import KEEP_MEMORY, report_cell, run_cell
from benchmarks.model_options import MODEL_OPTIONS, add_model_options, model_flags, size_of
from benchmarks.overlap import accuracy, overlaps
from benchmarks.plots import plot_lines
from benchmarks.report import RESULTS, report_rows
from benchmarks.served import measure_server
from benchmarks.systems import (
    BASELINES,
    ONLY_IF_NAMED,
    SMALLER,
    SYSTEMS,
    system_and_size,
    system_name,
)
from vllm_csp.durable import whole_file

TEXT_TOKENS = 60


def main(argv: Sequence[str] | None = None) -> None:
    """Run all systems and report, or one baseline when called by itself."""
    arguments = parse(argv)
    if arguments.cell:
        from benchmarks.timed_baselines import measure_baseline

        report_cell(measure_baseline(arguments))
        return
    card = _card(arguments)
    targets = [target for call in checked_calls(arguments) for target in call.targets]
    found = _found_before(arguments)
    for name in arguments.systems:
        if name in found:
            continue
        if system_and_size(name)[0] in BASELINES:
            cell = ["--cell", name, *_passed_on(arguments)]
            found[name] = run_cell("benchmarks.e2e", cell, KEEP_MEMORY)
        else:
            found[name] = measure_server(name, arguments)
        print(f"{name}: {len(found[name]['rows'])} cells done", file=sys.stderr, flush=True)
        if arguments.resume:
            with whole_file(_parts(arguments)) as file:
                file.write_text(json.dumps({"asked": _passed_on(arguments), "found": found}))
        # After each: what is there is kept, whatever becomes of those that follow.
        _report(found, targets, arguments, card)


def _parts(arguments: argparse.Namespace) -> Path:
    return RESULTS / f"{arguments.result}-parts.json"


def _found_before(arguments: argparse.Namespace) -> dict[str, Any]:
    """With `--resume`, what an earlier run has measured in the same way, by system."""
    if not arguments.resume or not _parts(arguments).exists():
        return {}
    stored = json.loads(_parts(arguments).read_text())
    found: dict[str, Any] = stored["found"] if stored["asked"] == _passed_on(arguments) else {}
    return found


def _report(
    found: dict[str, Any],
    targets: Sequence[Mask],
    arguments: argparse.Namespace,
    card: dict[str, Any],
) -> None:
    rows = [
        _row(name, cell, found, targets, arguments.hollow)
        for name in found
        for cell in found[name]["rows"]
    ]
    names = ("mode", "max_tokens", "requests", "waves", "scenes")
    setting = {name: getattr(arguments, name) for name in (*MODEL_OPTIONS, *names)}
    setting["memory"] = {name: one["memory"] for name, one in found.items() if "memory" in one}
    report_rows(arguments.result, "questions over HTTP", rows, {**setting, "ceiling": card})
    first = [row for row in rows if row["per_image"] == arguments.per_image[0]]
    file = RESULTS / f"{arguments.result}.png"
    plot_lines(file, first, "concurrency", "questions_per_second", "system", "questions over HTTP")


def _row(
    name: str,
    cell: dict[str, Any],
    found: dict[str, Any],
    targets: Sequence[Mask] = (),
    hollow: bool = False,
) -> dict[str, Any]:
    def rate(system: str, per_image: int, clients: int) -> float:
        rows = found.get(system, {"rows": []})["rows"]
        alone = system_and_size(system)[0] == "reference"
        for one in rows:
            same = one["per_image"] == per_image
            if same and (one["concurrency"] == clients or alone):
                return float(one["rate"])
        return float("nan")

    def over(base: float) -> float | str:
        return round(cell["rate"] / base, 3) if base == base else ""

    per_image, clients = cell["per_image"], cell["concurrency"]
    kind, sam_size = system_and_size(name)
    bases = BASELINES if any("@" in system for system in found) else ()
    small = {
        f"over_small_{base}": over(rate(f"{base}@{sam_size}", per_image, clients)) for base in bases
    }
    return {
        "system": name,
        "concurrency": clients,
        "per_image": per_image,
        "questions_per_second": round(cell["rate"], 3),
        "over_reference": over(rate("reference", per_image, clients)),
        "over_huggingface": over(rate("huggingface", per_image, clients)),
        **small,
        "over_dense": over(rate("dense", per_image, clients)),
        "over_alone": over(rate(name, 1, clients)),
        "p50_ms": round(cell["p50_ms"], 1),
        "p95_ms": round(cell["p95_ms"], 1),
        "sam_hits": int(cell["sam_hits"]),
        "prefix_tokens": int(cell["prefix_tokens"]),
        "iou": ""
        if kind == SMALLER or (hollow and kind in BASELINES)  # other weights
        else _least_iou(found[name]["masks"], found.get("dense", {}).get("masks", [])),
        "giou": round(accuracy(found[name]["masks"], targets), 4) if targets else "",
    }


def _least_iou(answers: list[Any], others: list[Any]) -> float | str:
    pairs = zip(answers, others, strict=False)
    ious = [iou for one, two in pairs if len(one) == len(two) for iou in overlaps(one, two)]
    return round(min(ious), 4) if ious else ""


def _card(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.checkpoint:
        return {}
    size = size_of(arguments)
    model = Model(size.layers, size.hidden, size.ffn, size.heads)
    parts = [llm_prefill(model, TEXT_TOKENS, arguments.dtype)]
    if arguments.mode == "generate":
        parts += [llm_decode(model, 256 + TEXT_TOKENS, arguments.dtype)]
    rates = measured_rates(arguments.dtype)
    return print_card(parts, rates, f"language model, {size.layers} layers x {size.hidden}")


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    names = ("mode", "max_tokens", "requests", "waves", "baseline_questions")
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    options += ["--scenes"] if arguments.scenes else []
    options += [*model_flags(arguments), "--concurrency", *map(str, arguments.concurrency)]
    return [*options, "--per-image", *map(str, arguments.per_image)]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run, of which `growth` makes its own."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench e2e",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--systems",
        nargs="+",
        type=system_name,
        metavar="SYSTEM",
        help=f"{', '.join(SYSTEMS)}; any with @512, too. Default: all but "
        f"{' and '.join(ONLY_IF_NAMED)}; without smaller-image if a checkpoint is given, as its "
        "image tower takes one size.",
    )
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--per-image", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--scenes", action="store_true", help="Ask about scenes; adds gIoU.")
    parser.add_argument("--mode", choices=["force", "generate"], default="generate")
    parser.add_argument(
        "--max-tokens", type=int, default=0, help="Of an answer; default: 3 beyond a random one's."
    )
    parser.add_argument("--requests", type=int, default=16, help="Least questions of a cell.")
    parser.add_argument("--waves", type=int, default=2, help="Least calls of each client.")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Keep each system's figures, and do not measure again what a run had that was ended.",
    )
    parser.add_argument(
        "--baseline-questions", type=int, default=4, help="Timed in the reference's loop."
    )
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--seats", type=int, default=256, help="Most sequences at once.")
    parser.add_argument("--kv-bytes", default="1G", help="KV cache; empty: what vLLM takes.")
    parser.add_argument("--compiled", action="store_true", help="Without --enforce-eager.")
    parser.add_argument("--flags", default="", help="Further ones for the servers, in one string.")
    parser.add_argument("--result", default="e2e", help="Name of the files.")
    parser.add_argument("--cell", type=system_name, help=argparse.SUPPRESS)
    add_model_options(parser)
    arguments = parser.parse_args(argv)
    arguments.max_tokens = arguments.max_tokens or arguments.answer_tokens + 3
    if arguments.systems is None:
        left_out = {*ONLY_IF_NAMED, *([SMALLER] if arguments.checkpoint else [])}
        arguments.systems = [one for one in SYSTEMS if one not in left_out]
    kinds = {system_and_size(one)[0] for one in arguments.systems}
    if arguments.checkpoint and SMALLER in kinds:
        parser.error(f"{SMALLER} needs a checkpoint of its own: leave --checkpoint out")
    return arguments


if __name__ == "__main__":
    main()
