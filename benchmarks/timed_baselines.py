"""Measures LISA's own loop, or `generate`, in this process."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from benchmarks import baselines
from benchmarks.calls import checked_calls, opened, plan
from benchmarks.latency import median_and_p95
from benchmarks.model_options import checkpoint_of
from benchmarks.systems import system_and_size


def measure_baseline(arguments: argparse.Namespace) -> dict[str, Any]:
    """The rows of a baseline, in this process."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kinds = {"reference": baselines.ReferenceLoop, "huggingface": baselines.HuggingFace}
    kind, sam_size = system_and_size(arguments.cell)
    checkpoint = checkpoint_of(arguments)
    baseline = kinds[kind](checkpoint, arguments.dtype, device, arguments.hollow, sam_size)
    alone = kind == "reference"
    options = {"max_tokens": arguments.max_tokens, "force": arguments.mode == "force"}
    checked = baseline.ask(opened(checked_calls(arguments)), **options)
    rows = []
    for cell in plan(arguments):
        clients, per_image = cell.clients, cell.per_image
        if alone and clients != arguments.concurrency[0]:
            continue  # it knows no concurrency: one row stands for all
        batch = clients * per_image
        # Steady, so a part of them tells the rate.
        enough = arguments.baseline_questions if alone else 2 * batch
        asked = opened(cell.calls(arguments.scenes))[:enough]
        step = 1 if alone else batch
        baseline.ask(asked[:step], **options)
        began, spent = time.perf_counter(), []
        for start in range(0, len(asked), step):
            before = time.perf_counter()
            replies = baseline.ask(asked[start : start + step], **options)
            for reply in replies:
                baselines.as_json(reply.masks)
            spent.append(time.perf_counter() - before)
        seconds = time.perf_counter() - began
        median, p95 = median_and_p95(spent)
        rows.append(
            {
                "concurrency": clients,
                "per_image": per_image,
                "rate": len(asked) / seconds,
                "p50_ms": 1e3 * median,
                "p95_ms": 1e3 * p95,
                "sam_hits": 0,
                "prefix_tokens": 0,
            }
        )
    return {"rows": rows, "masks": [baselines.as_json(reply.masks) for reply in checked]}
