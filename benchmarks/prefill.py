"""Prefill throughput of the policies against vLLM's stock LLaVA, and against what FLOPs predict.

    vllm-csp bench prefill [--layers 16 --hidden 1024] [--policies dense csp-65 ...]

A random checkpoint; one image, encoded once, so that the language model alone is measured. Prompts
that begin together would share its rows (`share_images`); that is off but in `csp-65-shared`, for
which FLOPs predict nothing here. In fp32 it is compute-bound on a CPU at any concurrency; in bf16 a
CPU with matrix units multiplies faster than it reads weights, and one request alone has too few
rows to be.
Every cell runs in its own process; the cells of a repeat run one after the other, and the median
over repeats is reported, as a ratio to `stock` of the same repeat. All cells keep freed memory and
use all of few cores, as the plugin does (`vllm_csp/allocator.py`, `cpu_cores.py`). The last line on
stdout is one JSON document; rows go to benchmarks/results/prefill-<dtype>.csv.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.ceiling import Model, llm_prefill, measured_rates, print_card
from benchmarks.cells import KEEP_MEMORY, report_cell, run_cell
from benchmarks.checkpoint import Size, write_checkpoint
from benchmarks.dtype_options import add_dtype_option
from benchmarks.plots import plot_bars
from benchmarks.report import RESULTS, report_rows
from benchmarks.systems import POLICIES as SERVED
from vllm_csp.cache_folder import CACHE

TEXT_TOKENS = 64
HIDDEN = 1024
SHARED = "csp-65-shared"
POLICIES: dict[str, dict[str, Any]] = {
    "stock": {},
    "dense": {"policy": "dense"},
    "csp-65": SERVED["csp-65-unshared"],
    "csp-70": {**SERVED["csp-70"], "share_images": False},
    SHARED: SERVED["csp-65"],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run all cells and report, or one cell when called by itself."""
    arguments = parse(argv)
    if arguments.cell:
        report_cell(measure(arguments))
        return
    size = _size(arguments)
    model = Model(size.layers, size.hidden, size.ffn, size.heads)
    part = llm_prefill(model, TEXT_TOKENS, arguments.dtype)
    rates = measured_rates(arguments.dtype)
    card = print_card([part], rates, f"dense prefill, {arguments.dtype}")
    times: dict[tuple[str, int], list[float]] = {}
    for repeat in range(arguments.repeats):
        for name in arguments.policies:
            measured = _in_own_process(name, arguments)
            for concurrency, seconds in measured.items():
                times.setdefault((name, int(concurrency)), []).append(seconds)
            print(f"repeat {repeat + 1} {name}: {measured}", file=sys.stderr, flush=True)
    rows = [_row(name, concurrency, times, arguments) for name, concurrency in sorted(times)]
    for row in rows:
        # Of what dense would have computed at that speed, less what the schedule leaves out.
        if row["policy"] != SHARED:
            flop = part.flop / row["flops_predict"]
            row["mfu"] = round(flop * row["prompts_per_second"] / rates.flops, 3)
    _report(rows, arguments, card)


def measure(arguments: argparse.Namespace) -> dict[int, float]:
    """Seconds per prompt at each concurrency, in this process."""
    from PIL import Image
    from vllm import LLM, SamplingParams
    from vllm.platforms import current_platform

    from vllm_csp.cpu_cores import use_all_of_few_cores

    use_all_of_few_cores()
    if current_platform.is_cuda():
        # An engine of its own process begins with the first prompt, before it has the others.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    settings = POLICIES[arguments.cell]
    folder, image_token = _checkpoint(arguments)
    llm = LLM(
        str(folder),
        dtype=arguments.dtype,
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=max(arguments.concurrency),
        max_num_batched_tokens=512 * max(arguments.concurrency),
        kv_cache_memory_bytes=arguments.kv_mib << 20,
        enable_prefix_caching=False,
        limit_mm_per_prompt={"image": 1},
        disable_log_stats=True,
        **({"load_format": "dummy"} if arguments.cell == "stock" or arguments.hollow else {}),
        **({"additional_config": {"csp": settings}} if settings else {}),
    )
    image = Image.effect_mandelbrot((448, 448), (-2, -1.5, 1, 1.5), 64).convert("RGB")
    prompt = {
        "prompt_token_ids": [1, *range(100, 131), image_token, *range(200, 200 + 32)],
        "multi_modal_data": {"image": image},
        "multi_modal_uuids": {"image": ["benchmark"]},
    }
    params = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
    seconds = {}
    for concurrency in arguments.concurrency:
        prompts = [prompt] * concurrency
        llm.generate(prompts, params, use_tqdm=False)
        runs = []
        for _ in range(arguments.rounds):
            began = time.perf_counter()
            llm.generate(prompts, params, use_tqdm=False)
            runs.append((time.perf_counter() - began) / concurrency)
        seconds[concurrency] = statistics.median(runs)
    return seconds


def _size(arguments: argparse.Namespace) -> Size:
    return Size(arguments.layers, arguments.hidden)


def _checkpoint(arguments: argparse.Namespace) -> tuple[Path, int]:
    """Its folder, and the id that stands for an image."""
    from vllm_csp.standin import llama_config

    size = _size(arguments)
    text = llama_config(size.hidden, size.ffn, size.layers, size.heads)
    if arguments.cell == "stock":
        from benchmarks.stock_llava import IMAGE_TOKEN_ID, write_stock_llava

        folder = CACHE / "bench" / f"{size.name}-llava"
        return write_stock_llava(folder, text), IMAGE_TOKEN_ID
    # LISA's image is the first id behind the words.
    return write_checkpoint(size, arguments.hollow), text.vocab_size


def _in_own_process(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    cell = ["--cell", name, "--layers", str(arguments.layers), "--hidden", str(arguments.hidden)]
    cell += ["--rounds", str(arguments.rounds)]
    cell += ["--concurrency", *map(str, arguments.concurrency)]
    cell += ["--kv-mib", str(arguments.kv_mib)]
    cell += ["--dtype", arguments.dtype, *(["--hollow"] if arguments.hollow else [])]
    without = name == "stock" and find_spec("torchvision") is None
    path = {"PYTHONPATH": str(Path(__file__).parent / "import_only")} if without else {}
    measured: dict[str, float] = run_cell("benchmarks.prefill", cell, {**KEEP_MEMORY, **path})
    return measured


def _row(
    name: str,
    concurrency: int,
    times: dict[tuple[str, int], list[float]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    from vllm_csp.tokens import policy
    from vllm_csp.tokens.accounting import DecoderShape, flops_ratio, kv_groups

    settings = {"policy": "dense", **POLICIES[name]}
    settings.pop("share_images", None)
    schedule = policy(settings.pop("policy"), arguments.layers, 256, **settings)
    size = _size(arguments)
    width = size.hidden // size.heads
    shape = DecoderShape(size.hidden, size.ffn, size.heads, size.heads, width)
    predicted = 1 / flops_ratio(schedule, shape, TEXT_TOKENS)
    own = times[name, concurrency]
    base = times.get(("dense", concurrency), own)
    stock = times.get(("stock", concurrency), own)
    speedup = statistics.median(b / o for b, o in zip(base, own, strict=True))
    return {
        "policy": name,
        "concurrency": concurrency,
        "prompts_per_second": round(1 / statistics.median(own), 2),
        "over_dense": round(speedup, 3),
        "over_stock": round(statistics.median(s / o for s, o in zip(stock, own, strict=True)), 3),
        "flops_predict": "" if name == SHARED else round(predicted, 3),
        "of_predicted": "" if name == SHARED else round(speedup / predicted, 3),
        "mean_visual_tokens": schedule.mean_visual_tokens_per_layer,
        "kv_groups": len(kv_groups(schedule)),
    }


def _report(
    rows: list[dict[str, Any]], arguments: argparse.Namespace, card: dict[str, Any]
) -> None:
    size = f"{arguments.layers} layers x {arguments.hidden}"
    names = ("dtype", "layers", "hidden", "repeats", "rounds")
    width = "" if arguments.hidden == HIDDEN else f"-{arguments.hidden}"
    report_rows(
        f"prefill-{arguments.dtype}{width}",
        f"eager prefill, {size}, {arguments.dtype}",
        rows,
        {
            **{name: getattr(arguments, name) for name in names},
            "text_tokens": TEXT_TOKENS,
            "ceiling": card,
        },
    )
    bars = {f"{row['policy']} x {row['concurrency']}": row["prompts_per_second"] for row in rows}
    file = RESULTS / f"prefill-{arguments.dtype}{width}.png"
    plot_bars(file, bars, "prompts per second", f"prefill, {size}, {arguments.dtype}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench prefill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    add_dtype_option(parser)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repeats", type=int, default=3, help="times all cells are run")
    parser.add_argument("--rounds", type=int, default=7, help="measurements within a cell")
    parser.add_argument("--kv-mib", type=int, default=1024, help="KV cache in MiB.")
    parser.add_argument("--hollow", action="store_true", help="Weights filled in by vLLM.")
    parser.add_argument("--cell", choices=list(POLICIES), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
