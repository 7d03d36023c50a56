"""Every policy at equal mean visual tokens per layer, on one engine, in one table.

    python -m benchmarks.policies [--mean 90] [--checkpoint DIR]

Each policy runs in its own process on the same photos and questions. `iou_to_dense` is the mean IoU
of its masks with those of `dense`; it says how far a policy moves the masks of this checkpoint, not
how right they are, which `benchmarks.ranking` measures. The last line on stdout is one JSON
document; rows go to benchmarks/results/policies.csv.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.cells import report_cell, run_cell
from benchmarks.overlap import overlaps
from benchmarks.report import report_rows

PHOTOS = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")
QUESTIONS = ("Please segment the largest object in this image.", "Where is the face?")
CLUSTERS = ("grid", "uniform", "random", "cls", "seg_first")


def main() -> None:
    """Run all policies and print the table, or one policy when called by itself."""
    arguments = _arguments()
    if arguments.cell:
        report_cell(run_policy(arguments, json.loads(arguments.cell)))
        return
    measured = {}
    for name, settings in _policies(arguments).items():
        cell = ["--cell", json.dumps(settings), "--checkpoint", arguments.checkpoint]
        measured[name] = run_cell("benchmarks.policies", cell)
    rows = [_row(name, result, measured["dense"]) for name, result in measured.items()]
    _report(rows, arguments)


def run_policy(arguments: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Masks, time and exact figures of one policy, in this process."""
    from PIL import Image
    from skimage import data

    from vllm_csp.serving.segmenter import Question, Segmenter
    from vllm_csp.serving.statistics import TokenStatistics
    from vllm_csp.tokens.accounting import kv_groups

    segmenter = Segmenter(
        arguments.checkpoint,
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=1 << 28,
        max_model_len=1024,
        max_num_seqs=16,
        disable_log_stats=True,
        additional_config={"csp": settings},
    )
    folder = Path(data.__file__).parent
    photos = [Image.open(folder / name) for name in PHOTOS]
    questions = [Question(text, photo, mode="force") for photo in photos for text in QUESTIONS]
    segmenter.ask(questions)
    began = time.perf_counter()
    answers = segmenter.ask(questions)
    seconds = time.perf_counter() - began
    statistics = TokenStatistics(segmenter.llm.llm_engine.vllm_config)
    return {
        "questions_per_second": round(len(questions) / seconds, 2),
        "kv_groups": len(kv_groups(statistics.schedule)),
        **statistics.of_prompt(len(answers[0].prompt_token_ids)),
        "masks": [mask for answer in answers for mask in answer.masks],
    }


def _policies(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of each policy, as schedules with the wanted mean."""
    from vllm_csp.evaluation.policy_run import engine_section
    from vllm_csp.models.config import LisaConfig
    from vllm_csp.tokens import at_mean

    published = json.loads((Path(arguments.checkpoint) / "config.json").read_text())
    layers = LisaConfig.from_published(published, {}, "").text_config.num_hidden_layers
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        **{f"csp {one}": ("csp", {"cluster": {"name": one}}) for one in CLUSTERS},
        "fastv": ("fastv", {"layer": layers // 4}),
        "feather": ("feather", {}),
        "prumerge+": ("prumerge+", {}),
        "resprune": ("resprune", {}),
        "random": ("random", {}),
    }
    settings: dict[str, dict[str, Any]] = {"dense": {"policy": "dense"}}
    for name, (policy, knobs) in wanted.items():
        schedule = at_mean(policy, arguments.mean, layers, 256, **knobs)
        settings[name] = engine_section(schedule)
    return settings


def _row(name: str, result: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    ious = overlaps(result["masks"], dense["masks"])
    return {
        "policy": name,
        "mean_visual_tokens": round(result["mean_visual_tokens_per_layer"], 1),
        "kept_per_stage": "/".join(map(str, result["kept_per_stage"])),
        "flops_ratio": round(result["flops_ratio"], 3),
        "kv_groups": result["kv_groups"],
        "kv_blocks": sum(result["kv_blocks"]),
        "questions_per_second": result["questions_per_second"],
        "iou_to_dense": round(sum(ious) / len(ious), 3),
    }


def _report(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    title = f"policies at {arguments.mean:g} of 256 visual tokens per layer"
    report_rows("policies", title, rows, {"mean": arguments.mean})


def _arguments() -> argparse.Namespace:
    from vllm_csp.cache_folder import CACHE
    from vllm_csp.standin import write_standin

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mean", type=float, default=90.0, help="visual tokens per layer, of 256")
    parser.add_argument("--checkpoint", default="", help="default: the random stand-in")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.checkpoint = arguments.checkpoint or str(write_standin(CACHE / "standin"))
    return arguments


if __name__ == "__main__":
    main()
