"""Seconds that SAM's image encoders take for an image: ViT-H, and MobileSAM's TinyViT.

    python -m benchmarks.encode [--encoders vit_h mobile_sam] [--dtypes bfloat16] [--batches 1]

Random weights, which take the same time as trained ones. Every encoder and dtype runs in its own
process; repeats go round all of them, and the median over repeats is reported. The last line on
stdout is one JSON document; rows go to benchmarks/results/encode.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cells import report_cell, run_cell
from benchmarks.prefill import KEEP_MEMORY

if TYPE_CHECKING:
    from torch import nn

RESULTS = Path(__file__).parent / "results"
ENCODERS = ["vit_h", "mobile_sam"]


def main() -> None:
    """Run all cells and report, or one cell when called by itself."""
    arguments = _arguments()
    if arguments.cell:
        report_cell(measure(arguments.encoders[0], arguments.dtypes[0], arguments.batches))
        return
    seconds: dict[tuple[str, str, int], list[float]] = {}
    counts = {encoder: work(encoder) for encoder in arguments.encoders}
    for repeat in range(arguments.repeats):
        for encoder, dtype in product(arguments.encoders, arguments.dtypes):
            cell = ["--cell", "--encoders", encoder, "--dtypes", dtype]
            cell += ["--batches", *map(str, arguments.batches)]
            measured = run_cell("benchmarks.encode", cell, KEEP_MEMORY)
            for batch, value in zip(arguments.batches, measured, strict=True):
                seconds.setdefault((encoder, dtype, batch), []).append(value)
            print(f"repeat {repeat + 1} {encoder} {dtype}: {measured}", file=sys.stderr, flush=True)
    rows = [
        {
            "encoder": encoder,
            "dtype": dtype,
            "batch": batch,
            "seconds_per_image": round(statistics.median(values), 4),
            **counts[encoder],
        }
        for (encoder, dtype, batch), values in seconds.items()
    ]
    _report(rows, arguments.repeats)


def measure(encoder: str, dtype: str, batches: list[int]) -> list[float]:
    """Seconds per image for each batch size, after one warm-up."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device(device):
        model = _build(encoder)
        pixels = torch.randn(max(batches), 3, 1024, 1024)
    seconds = []
    with torch.inference_mode():
        for batch in (batches[0], *batches):
            if device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            model(pixels[:batch])
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append((time.perf_counter() - began) / batch)
    return seconds[1:]


def work(encoder: str) -> dict[str, float]:
    """Operations for one image, and the number of weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # Without data: the counter does not know all of the attention kernels that devices have.
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model = _build(encoder)
        model(torch.empty(1, 3, 1024, 1024))
    values = sum(weight.numel() for weight in model.parameters())
    return {"tflop": round(counter.get_total_flops() / 1e12, 4), "weights": values}


def _build(encoder: str) -> nn.Module:
    from vllm_csp.sam.encoder_kind import build_encoder
    from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
    from vllm_csp.sam.vit_geometry import VIT_H

    return build_encoder({"vit_h": VIT_H, "mobile_sam": MOBILE_SAM}[encoder]).eval()


def _report(rows: list[dict[str, Any]], repeats: int) -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    table = Table(title="SAM image encoders, 1024 x 1024 pixels")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(stderr=True).print(table)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "encode.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    has_gpu = torch.cuda.is_available()
    setting = {
        "repeats": repeats,
        "device": torch.cuda.get_device_name() if has_gpu else platform.machine(),
        "cpu_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }
    print(json.dumps({"setting": setting, "rows": rows}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cell", action="store_true", help="Measure here, once; print seconds.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
