"""Seconds that SAM's image encoders take for an image: ViT-H, and MobileSAM's TinyViT.

    python -m benchmarks.encode [--encoders vit_h mobile_sam] [--dtypes bfloat16] [--batches 1]
    python -m benchmarks.encode --encoders mobile_sam --allocators kept default

Random weights, which take the same time as trained ones. Every encoder, dtype and setting of the
allocator runs in its own process; repeats go round all of them, and the median over repeats is
reported. The last line on stdout is one JSON document; rows go to benchmarks/results/encode.csv.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import product
from typing import TYPE_CHECKING

from benchmarks.cells import KEEP_MEMORY, report_cell, run_cell
from benchmarks.report import report_rows

if TYPE_CHECKING:
    from torch import nn

ALLOCATORS: dict[str, dict[str, str]] = {"kept": KEEP_MEMORY, "default": {}}
ENCODERS = ["vit_h", "mobile_sam"]


def main() -> None:
    """Run all cells and report, or one cell when called by itself."""
    arguments = _arguments()
    if arguments.cell:
        report_cell(measure(arguments.encoders[0], arguments.dtypes[0], arguments.batches))
        return
    seconds: dict[tuple[str, str, str, int], list[float]] = {}
    counts = {encoder: work(encoder) for encoder in arguments.encoders}
    for repeat in range(arguments.repeats):
        for encoder, dtype, allocator in product(
            arguments.encoders, arguments.dtypes, arguments.allocators
        ):
            cell = ["--cell", "--encoders", encoder, "--dtypes", dtype]
            cell += ["--batches", *map(str, arguments.batches)]
            measured = run_cell("benchmarks.encode", cell, ALLOCATORS[allocator])
            for batch, value in zip(arguments.batches, measured, strict=True):
                seconds.setdefault((encoder, dtype, allocator, batch), []).append(value)
            name = f"{encoder} {dtype} {allocator}"
            print(f"repeat {repeat + 1} {name}: {measured}", file=sys.stderr, flush=True)
    rows = [
        {
            "encoder": encoder,
            "dtype": dtype,
            "allocator": allocator,
            "batch": batch,
            "seconds_per_image": round(statistics.median(values), 4),
            **counts[encoder],
        }
        for (encoder, dtype, allocator, batch), values in seconds.items()
    ]
    title = "SAM image encoders, 1024 x 1024 pixels"
    report_rows("encode", title, rows, {"repeats": arguments.repeats})


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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument(
        "--allocators", nargs="+", default=["kept"], choices=list(ALLOCATORS), help="Of glibc."
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cell", action="store_true", help="Measure here, once; print seconds.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
