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
from typing import Any

from benchmarks.cells import report_cell, run_cell
from benchmarks.prefill import KEEP_MEMORY

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run all cells and report, or one cell when called by itself."""
    arguments = _arguments()
    if arguments.cell:
        report_cell(measure(arguments.encoders[0], arguments.dtypes[0], arguments.batches))
        return
    seconds: dict[tuple[str, str, int], list[float]] = {}
    counts: dict[str, dict[str, float]] = {}
    for repeat in range(arguments.repeats):
        for encoder, dtype in product(arguments.encoders, arguments.dtypes):
            cell = ["--cell", "--encoders", encoder, "--dtypes", dtype]
            cell += ["--batches", *map(str, arguments.batches)]
            measured = run_cell("benchmarks.encode", cell, KEEP_MEMORY)
            counts[encoder] = measured["counts"]
            for batch, value in zip(arguments.batches, measured["seconds"], strict=True):
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


def measure(encoder: str, dtype: str, batches: list[int]) -> dict[str, Any]:
    """Seconds per image for each batch size, after one warm-up, and the work of one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vllm_csp.sam.encoder_kind import build_encoder
    from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
    from vllm_csp.sam.vit_geometry import VIT_H

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device(device):
        model = build_encoder({"vit_h": VIT_H, "mobile_sam": MOBILE_SAM}[encoder]).eval()
        pixels = torch.randn(max(batches), 3, 1024, 1024)
    seconds = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            model(pixels[:1])
        for batch in batches:
            if device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            model(pixels[:batch])
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append((time.perf_counter() - began) / batch)
    values = sum(weight.numel() for weight in model.parameters())
    work = {"tflop": round(counter.get_total_flops() / 1e12, 4), "weights": values}
    return {"seconds": seconds, "counts": work}


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
    parser.add_argument("--encoders", nargs="+", default=["vit_h", "mobile_sam"])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cell", action="store_true", help="Measure here, once; print seconds.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
