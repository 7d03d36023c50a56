"""Seconds that the image encoders take for an image: SAM's ViT-H, MobileSAM's TinyViT, CLIP.

    vllm-csp bench encode [--encoders vit_h mobile_sam clip] [--dtypes bfloat16] [--batches 1]
    vllm-csp bench encode --implementations ours shipped --dtypes bfloat16 float32
    python -m benchmarks.encode --encoders mobile_sam --allocators kept default
    python -m benchmarks.encode --encoders mobile_sam --rows 1024 768 576 --check
    python -m benchmarks.encode --encoders mobile_sam mobile_sam@768 mobile_sam@512

Random weights, which take the same time as trained ones. `shipped`: segment-anything's own ViT code
on the same weights, and MobileSAM's steps one by one; they run in fp32 unless cast. `int8`: ours
with linear layers in INT8, as `sam_quantization` makes them. `compiled`: ours with its blocks
through `torch.compile`, see `benchmarks/compiled.py`. `way`: how a
ViT's attention is computed, see `vllm_csp/sam/window_attention.py`; `unfused`: MobileSAM's without
`vllm_csp/sam/fused_gelu.py`; `auto` is what the engine takes. Every encoder, implementation, dtype
and setting of the allocator runs in its own process; repeats go round all of them, and the median
over repeats is reported. `over_shipped` is the ratio to `shipped` in fp32, of the same repeat. With
`--check`, `error` is the norm of the difference to shipped fp32 over its norm (needs memory for
both). `--rows`: how many rows of the square a photo covers; padding below costs ours less (photos
of 4:3 have 768 of 1024, of 16:9 576). `@512`: for squares of that side, as `sam_image_size` makes
them. The last line on stdout is one JSON document; rows go to benchmarks/results/encode.csv.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from benchmarks.ceiling import Part, measured_rates, print_card
from benchmarks.cells import KEEP_MEMORY, report_cell, run_cell
from benchmarks.compiled import compile_blocks
from benchmarks.dtype_options import add_dtypes_option
from benchmarks.encoders import ENCODERS, build, encoder_name, exists, work
from benchmarks.plots import plot_bars
from benchmarks.report import RESULTS, report_rows
from vllm_csp.images import SAM_IMAGE_SIZE

if TYPE_CHECKING:
    from torch import Tensor, nn

ALLOCATORS: dict[str, dict[str, str]] = {"kept": KEEP_MEMORY, "default": {}}
IMPLEMENTATIONS = ["ours", "int8", "compiled", "shipped"]
WAYS = ["auto", "channels", "fused", "biased", "unfused"]
LEAST_ROUNDS, MOST_ROUNDS = 3, 5
Cell = tuple[str, str, str, str, str]
Key = tuple[Cell, int, int]
"""Of a cell, a number of rows and a batch size."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run all cells and report, or one cell when called by itself."""
    arguments = parse(argv)
    if arguments.cell:
        report_cell(measure(arguments))
        return
    cells = [
        cell
        for cell in product(
            arguments.encoders,
            arguments.implementations,
            arguments.ways,
            arguments.dtypes,
            arguments.allocators,
        )
        if exists(*cell[:3])
    ]
    rates = {dtype: measured_rates(dtype) for dtype in arguments.dtypes}
    parts = {
        (encoder, dtype): work(encoder, dtype)
        for encoder, dtype in product(arguments.encoders, arguments.dtypes)
    }
    cards = {
        dtype: print_card(
            [part for (_, one), part in parts.items() if one == dtype], rates[dtype], dtype
        )
        for dtype in arguments.dtypes
    }
    measured: dict[Key, list[dict[str, float]]] = {}
    for repeat in range(arguments.repeats):
        for cell in cells:
            found = run_cell("benchmarks.encode", _command(cell, arguments), ALLOCATORS[cell[4]])
            settings = product(arguments.rows, arguments.batches)
            for (rows, batch), one in zip(settings, found, strict=True):
                measured.setdefault((cell, rows, batch), []).append(one)
            print(f"repeat {repeat + 1} {' '.join(cell)}: {found}", file=sys.stderr, flush=True)
    lines = [_row(key, measured, parts, rates) for key in measured]
    setting = {"repeats": arguments.repeats, "threads": arguments.threads, "ceiling": cards}
    report_rows(arguments.result, "image encoders", lines, setting)
    bars = {" ".join(map(str, list(one.values())[:7])): one["seconds_per_image"] for one in lines}
    plot_bars(RESULTS / f"{arguments.result}.png", bars, "seconds per image", "image encoders")


def measure(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds per image for each number of rows and batch size, and the error, after a warm-up."""
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    [encoder], [implementation], [way], [dtype] = (
        arguments.encoders,
        arguments.implementations,
        arguments.ways,
        arguments.dtypes,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if way == "unfused":
        from vllm_csp.sam import fused_gelu

        fused_gelu.can_fuse = lambda *_: False
    elif way != "auto":
        from vllm_csp.sam import window_attention

        chosen = getattr(window_attention, f"_{way}")
        window_attention.way_for = lambda cells: chosen
    torch.manual_seed(0)
    with torch.device(device):
        model, side = build(encoder)
        pixels = torch.randn(max(arguments.batches), 3, side, side)
    with torch.inference_mode():
        images = [_padded(pixels, rows) for rows in arguments.rows]
        exact = []
        if arguments.check and encoder != "clip":
            exact = [_runner(model, "shipped", side)(image[:1]) for image in images]
        model = model.to(getattr(torch, dtype))
        if implementation == "int8":
            from vllm_csp.models.int8_linear import use_int8

            for layer in use_int8(model):
                layer.quantize()
        elif implementation == "compiled":
            compile_blocks(model)
        runs = [_runner(model, implementation, rows) for rows in arguments.rows]
        images = [image.to(getattr(torch, dtype)) for image in images]
        errors = [float("nan")] * len(images)
        if exact:
            made = [run(image[:1]).float() for run, image in zip(runs, images, strict=True)]
            pairs = zip(made, exact, strict=True)
            errors = [float((one - other).norm() / other.norm()) for one, other in pairs]
        settings = list(product(range(len(images)), arguments.batches))
        calls = [partial(runs[number], images[number][:batch]) for number, batch in settings]
        seconds = _timed(calls, device)
        return [
            {"seconds": one / batch, "error": errors[number]}
            for one, (number, batch) in zip(seconds, settings, strict=True)
        ]


def _padded(pixels: Tensor, rows: int) -> Tensor:
    """Images that cover this many rows of their squares."""
    padded = pixels.clone()
    padded[..., rows:, :] = 0
    return padded


def _timed(calls: Sequence[Callable[[], Tensor]], device: str) -> list[float]:
    """Seconds of each, after a warm-up: medians of three rounds, of five if they are short."""
    rounds: list[list[float]] = []
    while len(rounds) <= (LEAST_ROUNDS if sum(map(sum, rounds)) > len(calls) else MOST_ROUNDS):
        seconds = [0.0] * len(calls)
        # To and fro: none is always the first.
        order = range(len(calls)) if len(rounds) % 2 else reversed(range(len(calls)))
        for number in order:
            _wait(device)
            began = time.perf_counter()
            calls[number]()
            _wait(device)
            seconds[number] = time.perf_counter() - began
        rounds.append(seconds)
    return [statistics.median(own) for own in zip(*rounds[1:], strict=True)]


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _runner(model: nn.Module, implementation: str, rows: int) -> Callable[[Tensor], Tensor]:
    from transformers import CLIPVisionModel

    from benchmarks.shipped import shipped_encode

    if isinstance(model, CLIPVisionModel):
        return lambda pixels: model(pixels)
    if implementation != "shipped":
        return lambda pixels: model(pixels, (min(rows, pixels.shape[2]), pixels.shape[3]))
    return partial(shipped_encode, model)


def _command(cell: Cell, arguments: argparse.Namespace) -> list[str]:
    encoder, implementation, way, dtype, _ = cell
    command = ["--cell", "--encoders", encoder, "--implementations", implementation]
    command += ["--ways", way, "--dtypes", dtype, "--threads", str(arguments.threads)]
    return [
        *command,
        *("--rows", *map(str, arguments.rows)),
        *("--batches", *map(str, arguments.batches)),
        *(["--check"] if arguments.check else []),
    ]


def _row(
    key: Key,
    measured: dict[Key, list[dict[str, float]]],
    parts: dict[tuple[str, str], Part],
    rates: dict[str, Any],
) -> dict[str, Any]:
    cell, rows, batch = key
    encoder, implementation, way, dtype, allocator = cell
    part = parts[encoder, dtype]
    own = [one["seconds"] for one in measured[key]]
    shipped = measured.get(((encoder, "shipped", "auto", "float32", allocator), rows, batch))
    ratios = [b["seconds"] / o for b, o in zip(shipped, own, strict=True)] if shipped else []
    seconds = statistics.median(own)
    error = measured[key][0]["error"]
    # What is left out of a photo's padding is not counted.
    counted = implementation == "shipped" or rows >= SAM_IMAGE_SIZE
    return {
        "encoder": encoder,
        "implementation": implementation,
        "way": way,
        "dtype": dtype,
        "allocator": allocator,
        "rows": rows,
        "batch": batch,
        "seconds_per_image": round(seconds, 4),
        "over_shipped": round(statistics.median(ratios), 2) if ratios else "",
        "error": f"{error:.2g}" if error == error else "",
        "tflop": round(part.flop / 1e12, 4) if counted else "",
        "mfu": round(part.flop / seconds / rates[dtype].flops, 3) if counted else "",
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench encode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoders", nargs="+", default=ENCODERS[:3], type=encoder_name)
    parser.add_argument(
        "--implementations", nargs="+", default=["ours", "shipped"], choices=IMPLEMENTATIONS
    )
    parser.add_argument("--ways", nargs="+", default=["auto"], choices=WAYS)
    add_dtypes_option(parser)
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument(
        "--rows", nargs="+", type=int, default=[SAM_IMAGE_SIZE], help="Of the photo."
    )
    parser.add_argument(
        "--allocators", nargs="+", default=["kept"], choices=list(ALLOCATORS), help="Of glibc."
    )
    parser.add_argument("--threads", type=int, default=0, help="Of torch; 0: all.")
    parser.add_argument("--check", action="store_true", help="Also compare with shipped fp32.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--result", default="encode", help="Name of the files.")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if "clip" in arguments.encoders and arguments.rows != [SAM_IMAGE_SIZE]:
        parser.error("CLIP takes no padding: --rows is for the others, see --encoders")
    return arguments


if __name__ == "__main__":
    main()
