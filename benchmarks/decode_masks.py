"""Milliseconds per mask: batched over requests, against a loop over images as LISA runs it.

    vllm-csp bench decode-masks [--queries 1 8 32] [--per-image 1 8] [--dtypes bfloat16]

`loop`: segment-anything's mask decoder, one image at a time, masks in fp32 at full resolution to
the host, thresholded and run-length encoded there. `batch`: ours: one call for all queries,
thresholded and packed to bits on the device. Both begin with image embeddings and queries, of
LISA-mini asked about held-out scenes, and end with COCO RLE. `--checkpoint ''` has random weights,
whose masks are noise with long run lengths. `least_iou` compares the masks of both.
Every implementation and dtype runs in its own process, repeats go round all of them. The last line
on stdout is one JSON document; rows go to benchmarks/results/decode-masks.csv.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ceiling import Part, measured_rates, print_card
from benchmarks.cells import KEEP_MEMORY, report_cell, run_cell
from benchmarks.dtype_options import add_dtypes_option
from benchmarks.overlap import overlaps
from benchmarks.plots import plot_lines
from benchmarks.report import RESULTS, report_rows
from vllm_csp.mini import MINI

if TYPE_CHECKING:
    from vllm_csp.sam.sam import Sam

IMPLEMENTATIONS = ("loop", "batch")

Key = tuple[str, str, int, int]
"""Implementation, dtype, queries, queries per image."""
Seconds = dict[Key, list[float]]


def main(argv: Sequence[str] | None = None) -> None:
    """Run all cells and report, or one cell when called by itself."""
    arguments = parse(argv)
    if arguments.cell:
        report_cell(measure(arguments.cell, arguments.dtypes[0], arguments))
        return
    cards = {}
    for dtype in arguments.dtypes:
        part = Part("one mask", arguments.gflop * 1e9, 4 << 20)
        cards[dtype] = print_card([part], measured_rates(dtype), f"mask decoding, {dtype}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "work.pt"
        _write_work(file, arguments)
        seconds, masks = _measured(file, arguments)
    rows = [_row(key, seconds, masks, cards, arguments.gflop) for key in seconds]
    names = ("width", "height", "repeats")
    setting = {name: getattr(arguments, name) for name in names}
    setting["checkpoint"] = Path(arguments.checkpoint).name
    report_rows(arguments.result, "mask decoding", rows, {**setting, "ceiling": cards})
    lines = [{**row, "by": f"{row['implementation']} {row['dtype']}"} for row in rows]
    alone = [row for row in lines if row["per_image"] == arguments.per_image[0]]
    plot = RESULTS / f"{arguments.result}.png"
    plot_lines(plot, alone, "queries", "ms_per_mask", "by", "mask decoding")


def _write_work(file: Path, arguments: argparse.Namespace) -> None:
    """Once for all cells."""
    import torch

    from benchmarks.mask_work import random_work, trained_work

    images, per_image = max(arguments.queries), max(arguments.per_image)
    if arguments.checkpoint:
        size = (arguments.height, arguments.width)
        work = trained_work(arguments.checkpoint, images, per_image, size)
    else:
        work = random_work(images, per_image)
    torch.save(work, file)
    print(f"embeddings of {images} images made", file=sys.stderr, flush=True)


def _measured(file: Path, arguments: argparse.Namespace) -> tuple[Seconds, dict[Key, list[Any]]]:
    """Seconds of every repeat, and masks, of all cells."""
    seconds: Seconds = {}
    masks: dict[Key, list[Any]] = {}
    for repeat in range(arguments.repeats):
        for name, dtype in product(IMPLEMENTATIONS, arguments.dtypes):
            cell = ["--cell", name, "--dtypes", dtype, "--work", str(file)]
            cell += [f"--checkpoint={arguments.checkpoint}"]
            cell += ["--queries", *map(str, arguments.queries)]
            cell += ["--per-image", *map(str, arguments.per_image)]
            cell += ["--width", str(arguments.width), "--height", str(arguments.height)]
            for one in run_cell("benchmarks.decode_masks", cell, KEEP_MEMORY):
                key = (name, dtype, one["queries"], one["per_image"])
                seconds.setdefault(key, []).append(one["seconds"])
                masks[key] = one["masks"]
            print(f"repeat {repeat + 1} {name} {dtype} done", file=sys.stderr, flush=True)
    return seconds, masks


def measure(name: str, dtype: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each number of queries, in this process, and the masks of the last call."""
    import torch

    from benchmarks.mask_work import load_sam, load_work

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sam = load_sam(arguments.checkpoint, dtype, device)
    like = next(sam.parameters())
    size = (arguments.height, arguments.width)
    found = []
    for queries, per_image in product(arguments.queries, arguments.per_image):
        if queries % per_image:
            continue
        work = load_work(arguments.work, queries // per_image, per_image, like, size)
        run = {"loop": _loop, "batch": _batch}[name](sam, *work)
        masks = run()
        runs = []
        for _ in range(3):
            began = time.perf_counter()
            run()
            runs.append(time.perf_counter() - began)
        found.append(
            {
                "queries": queries,
                "per_image": per_image,
                "seconds": statistics.median(runs),
                "masks": masks,
            }
        )
    return found


def _batch(sam: Sam, images: list[Any], queries: list[Any]) -> Callable[[], Any]:
    from vllm_csp.masks import encode_mask, unpack_mask
    from vllm_csp.sam.mask_service import MaskService

    service = MaskService(sam, 1)

    def run() -> list[Any]:
        return [
            encode_mask(unpack_mask(bits, one.size), score, 0, "rle")
            for one in service.decode(images, queries)
            for bits, score in zip(one.masks, one.scores, strict=True)
        ]

    return run


def _loop(sam: Sam, images: list[Any], queries: list[Any]) -> Callable[[], Any]:
    import torch

    from benchmarks.baselines import as_json
    from benchmarks.shipped import shipped_masks

    embeddings = [image.embedding.contiguous() for image in images]

    @torch.inference_mode()
    def run() -> list[Any]:
        masks = []
        for image, embedding, rows in zip(images, embeddings, queries, strict=True):
            masks += as_json(shipped_masks(sam, embedding, rows, image.original_size))
        return masks

    return run


def _row(
    key: Key, seconds: Seconds, masks: dict[Key, list[Any]], cards: dict[str, Any], gflop: float
) -> dict[str, Any]:
    name, dtype, queries, per_image = key
    loop = ("loop", dtype, queries, per_image)
    spent = statistics.median(seconds[key]) / queries
    ratios = [b / o for b, o in zip(seconds[loop], seconds[key], strict=True)]
    return {
        "implementation": name,
        "dtype": dtype,
        "queries": queries,
        "per_image": per_image,
        "ms_per_mask": round(1e3 * spent, 3),
        "over_loop": round(statistics.median(ratios), 2),
        "mfu": round(gflop * 1e9 / spent / (cards[dtype]["tflops"] * 1e12), 3),
        "least_iou": round(min(overlaps(masks[key], masks[loop])), 4),
    }


def counted_gflop() -> float:
    """Operations of one query of an image of its own, in 10^9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vllm_csp.sam.sam import Sam
    from vllm_csp.standin import SAM

    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        Sam(SAM).decode(torch.empty(1, 256, 64, 64), torch.empty(1, 256))
    return counter.get_total_flops() / 1e9


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench decode-masks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", default=str(MINI), help="Default: LISA-mini; '': random.")
    parser.add_argument("--queries", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--per-image", nargs="+", type=int, default=[1, 8])
    add_dtypes_option(parser)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--result", default="decode-masks", help="Name of the files.")
    parser.add_argument("--cell", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.gflop = 0.0 if arguments.cell else counted_gflop()
    return arguments


if __name__ == "__main__":
    main()
