"""Questions per second through HTTP, against what people run today, on the same weights.

    vllm-csp bench e2e [--systems reference huggingface dense csp-65 ...] [--concurrency 1 4 16 64]
                       [--per-image 1 8] [--mode force|generate] [--checkpoint DIR]

`reference`: LISA's own loop, and `huggingface`: `generate` with KV cache in a batch of as many
questions as there are clients (`benchmarks/baselines.py`); both in a process without a server.
`dense` and the policies: a server each, asked by as many clients as the row says; one call of
/v1/segment has one photo and `per_image` questions. `smaller-image`: dense, with an image tower
that takes fewer pixels, so that its tokens are about what csp-65 has on average. No photo is sent
twice, so one question per image reuses nothing; eight per image show what reuse gives
(`over_alone`: questions per second over those of the row with one). `iou`: least mask IoU with
those of `dense`; 1 for the baselines but for rounding, lower for policies. Without a trained
checkpoint it is no accuracy. The model is random and `--layers` x `--hidden` large if no checkpoint
is given. The last line on stdout is one JSON document; rows go to benchmarks/results/e2e.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.ceiling import Model, llm_decode, llm_prefill, measured_rates, print_card
from benchmarks.cells import KEEP_MEMORY, report_cell, run_cell
from benchmarks.checkpoint import Size, write_checkpoint
from benchmarks.plots import plot_lines
from benchmarks.questions import photo, question
from benchmarks.report import RESULTS, report_rows

POLICIES: dict[str, dict[str, Any]] = {
    "dense": {"policy": "dense"},
    "csp-65": {"policy": "csp", "preset": "65"},
    "csp-70": {"policy": "csp", "preset": "70"},
    "fastv": {"policy": "fastv"},
    "feather": {"policy": "feather"},
    "prumerge+": {"policy": "prumerge+"},
    "resprune": {"policy": "resprune"},
    "random": {"policy": "random"},
}
BASELINES = ("reference", "huggingface")
SMALLER = "smaller-image"
SMALLER_TOKENS = 81
SYSTEMS = (*BASELINES, *POLICIES, SMALLER)
TEXT_TOKENS = 60
CHECKED = 4
"""Photos whose masks are compared."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run all systems and report, or one baseline when called by itself."""
    arguments = _arguments(argv)
    if arguments.cell:
        report_cell(measure_baseline(arguments))
        return
    card = _card(arguments)
    found: dict[str, Any] = {}
    for name in arguments.systems:
        if name in BASELINES:
            cell = ["--cell", name, *_passed_on(arguments)]
            found[name] = run_cell("benchmarks.e2e", cell, KEEP_MEMORY)
        else:
            found[name] = _serve(name, arguments)
        print(f"{name}: {len(found[name]['rows'])} cells done", file=sys.stderr, flush=True)
    rows = [_row(name, cell, found) for name in found for cell in found[name]["rows"]]
    names = ("layers", "hidden", "dtype", "mode", "max_tokens", "requests", "checkpoint")
    setting = {name: getattr(arguments, name) for name in names}
    setting["memory"] = {name: one["memory"] for name, one in found.items() if "memory" in one}
    report_rows(arguments.result, "questions over HTTP", rows, {**setting, "ceiling": card})
    first = [row for row in rows if row["per_image"] == arguments.per_image[0]]
    file = RESULTS / f"{arguments.result}.png"
    plot_lines(file, first, "concurrency", "questions_per_second", "system", "questions over HTTP")


# --- what is asked ---


def jpeg(number: int) -> bytes:
    """The file of a photo."""
    stream = BytesIO()
    photo(number).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def calls(total: int, per_image: int, first: int) -> list[tuple[bytes, list[str]]]:
    """Photos from number `first` on, with their questions: `total` questions, or a few more."""
    return [
        (jpeg(first + number), [question(first + number + extra) for extra in range(per_image)])
        for number in range(-(-total // per_image))
    ]


def plan(arguments: argparse.Namespace) -> Iterator[tuple[int, int, list[tuple[bytes, list[str]]]]]:
    """Cells: clients, questions per image, calls. The same for every system."""
    start = count(1000, 10_000)
    for per_image in arguments.per_image:
        for clients in arguments.concurrency:
            total = max(arguments.requests, 2 * clients * per_image)
            yield clients, per_image, calls(total, per_image, next(start))


# --- servers ---


def _serve(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from vllm_csp.serving.server import background_server

    settings = POLICIES["dense" if name == SMALLER else name]
    seats = max(arguments.concurrency) * max(arguments.per_image)
    flags = [
        *("--dtype", arguments.dtype, "--max-model-len", str(arguments.max_model_len)),
        *("--max-num-seqs", str(min(seats, arguments.seats)), "--served-model-name", "lisa"),
        *("--additional-config", json.dumps({"csp": settings})),
        *([] if arguments.compiled else ["--enforce-eager"]),
        *(["--load-format", "dummy"] if arguments.hollow else []),
        *arguments.flags.split(),
    ]
    if arguments.kv_bytes:
        flags += ["--kv-cache-memory-bytes", arguments.kv_bytes]
    checkpoint = _checkpoint(arguments, SMALLER_TOKENS if name == SMALLER else 0)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with background_server(checkpoint, flags, log, time_limit=1200) as url:
            return {**asyncio.run(_ask_all(url, arguments)), "memory": memory_lines(log)}


def memory_lines(log: Path) -> list[str]:
    """What a server's log says of weights and KV cache."""
    lines = log.read_text(errors="replace").splitlines()
    marks = ("KV cache size", "KV cache memory", "Maximum concurrency", "Model loading took")
    return [
        line[max(0, line.find("]") + 1) :].strip()
        for line in lines
        if any(m in line for m in marks)
    ]


async def _ask_all(url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import httpx

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        checked = await _run(client, calls(CHECKED, 1, 0), 1, arguments)
        rows = []
        for clients, per_image, wanted in plan(arguments):
            warm_up = calls(clients, per_image, 500_000 + 1000 * clients + 100 * per_image)
            await _run(client, warm_up, clients, arguments)
            before = await _counters(client)
            began = time.perf_counter()
            done = await _run(client, wanted, clients, arguments)
            seconds = time.perf_counter() - began
            after = await _counters(client)
            spent = [one["seconds"] for one in done]
            rows.append(
                {
                    "concurrency": clients,
                    "per_image": per_image,
                    "rate": sum(len(one) for _, one in wanted) / seconds,
                    "p50_ms": 1e3 * statistics.median(spent),
                    "p95_ms": 1e3 * sorted(spent)[int(0.95 * (len(spent) - 1))],
                    **{name: after[name] - before[name] for name in after},
                }
            )
    return {"rows": rows, "masks": [mask for one in checked for mask in one["masks"]]}


async def _run(
    client: Any, wanted: list[tuple[bytes, list[str]]], clients: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    import base64

    bodies = [
        {
            "image": base64.b64encode(file).decode(),
            "questions": questions,
            "mode": arguments.mode,
            **({"max_tokens": arguments.max_tokens} if arguments.mode == "generate" else {}),
        }
        for file, questions in wanted
    ]
    waiting = iter(bodies)
    done: list[dict[str, Any]] = []

    async def ask() -> None:
        for body in waiting:
            began = time.perf_counter()
            reply = await client.post("/v1/segment", json=body)
            reply.raise_for_status()
            results = reply.json()["results"]
            failed = [one["error"] for one in results if one.get("error")]
            if failed:
                raise SystemExit(f"a question failed: {failed[0]}")
            masks = [mask for one in results for mask in one["masks"]]
            done.append({"seconds": time.perf_counter() - began, "masks": masks})

    await asyncio.gather(*(ask() for _ in range(clients)))
    return done


async def _counters(client: Any) -> dict[str, float]:
    """What was reused so far: image embeddings, and tokens whose keys and values were there."""
    wanted = {
        "sam_hits": "vllm_csp:sam_cache_hits_total",
        "prefix_tokens": "vllm:prefix_cache_hits_total",
    }
    lines = (await client.get("/metrics")).text.splitlines()
    return {
        name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))
        for name, metric in wanted.items()
    }


# --- baselines ---


def measure_baseline(arguments: argparse.Namespace) -> dict[str, Any]:
    """The rows of a baseline, in this process."""
    import torch

    from benchmarks import baselines

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"reference": baselines.ReferenceLoop, "huggingface": baselines.HuggingFace}
    checkpoint = _checkpoint(arguments)
    baseline = kind[arguments.cell](checkpoint, arguments.dtype, device, arguments.hollow)
    alone = arguments.cell == "reference"
    options = {"max_tokens": arguments.max_tokens, "force": arguments.mode == "force"}
    checked = baseline.ask(_opened(calls(CHECKED, 1, 0)), **options)
    rows = []
    for clients, per_image, wanted in plan(arguments):
        if alone and clients != arguments.concurrency[0]:
            continue  # it knows no concurrency: one row stands for all
        batch = clients * per_image
        # Steady, so a part of them tells the rate.
        asked = _opened(wanted)[: 2 * batch if not alone else arguments.baseline_questions]
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
        rows.append(
            {
                "concurrency": clients,
                "per_image": per_image,
                "rate": len(asked) / seconds,
                "p50_ms": 1e3 * statistics.median(spent),
                "p95_ms": 1e3 * max(spent),
                "sam_hits": 0,
                "prefix_tokens": 0,
            }
        )
    masks = [mask for reply in checked for mask in baselines.as_json(reply.masks)]
    return {"rows": rows, "masks": masks}


def _opened(wanted: list[tuple[bytes, list[str]]]) -> list[tuple[str, Any]]:
    from PIL import Image

    opened = [(Image.open(BytesIO(file)).convert("RGB"), texts) for file, texts in wanted]
    return [(text, image) for image, texts in opened for text in texts]


# --- report ---


def _row(name: str, cell: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    def rate(system: str, per_image: int, clients: int) -> float:
        rows = found.get(system, {"rows": []})["rows"]
        for one in rows:
            same = one["per_image"] == per_image
            if same and (one["concurrency"] == clients or system == "reference"):
                return float(one["rate"])
        return float("nan")

    def over(base: float) -> float | str:
        return round(cell["rate"] / base, 3) if base == base else ""

    per_image, clients = cell["per_image"], cell["concurrency"]
    return {
        "system": name,
        "concurrency": clients,
        "per_image": per_image,
        "questions_per_second": round(cell["rate"], 3),
        "over_reference": over(rate("reference", per_image, clients)),
        "over_huggingface": over(rate("huggingface", per_image, clients)),
        "over_dense": over(rate("dense", per_image, clients)),
        "over_alone": over(rate(name, 1, clients)),
        "p50_ms": round(cell["p50_ms"], 1),
        "p95_ms": round(cell["p95_ms"], 1),
        "sam_hits": int(cell["sam_hits"]),
        "prefix_tokens": int(cell["prefix_tokens"]),
        "iou": ""
        if name == SMALLER  # another checkpoint
        else _least_iou(found[name]["masks"], found.get("dense", {}).get("masks", [])),
    }


def _least_iou(masks: list[dict[str, Any]], others: list[dict[str, Any]]) -> float | str:
    from pycocotools import mask as coco

    def rle(mask: dict[str, Any]) -> dict[str, Any]:
        return {"size": mask["size"], "counts": mask["counts"].encode("ascii")}

    if not masks or len(masks) != len(others):
        return ""
    pairs = zip(masks, others, strict=True)
    return round(min(float(coco.iou([rle(a)], [rle(b)], [0])[0][0]) for a, b in pairs), 4)


def _card(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.checkpoint:
        return {}
    size = _size(arguments)
    model = Model(size.layers, size.hidden, size.ffn, size.heads)
    parts = [llm_prefill(model, TEXT_TOKENS, arguments.dtype)]
    if arguments.mode == "generate":
        parts += [llm_decode(model, 256 + TEXT_TOKENS, arguments.dtype)]
    rates = measured_rates(arguments.dtype)
    return print_card(parts, rates, f"language model, {size.layers} layers x {size.hidden}")


def _size(arguments: argparse.Namespace, image_tokens: int = 0) -> Size:
    return Size(
        arguments.layers, arguments.hidden, image_tokens or arguments.image_tokens, arguments.large
    )


def _checkpoint(arguments: argparse.Namespace, image_tokens: int = 0) -> str:
    if arguments.checkpoint and not image_tokens:
        return str(arguments.checkpoint)
    return str(write_checkpoint(_size(arguments, image_tokens), arguments.hollow))


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    names = ("layers", "hidden", "image_tokens", "dtype", "mode", "max_tokens", "requests")
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    options += [f"--baseline-questions={arguments.baseline_questions}"]
    options += [f"--checkpoint={arguments.checkpoint}"] if arguments.checkpoint else []
    options += ["--large"] if arguments.large else []
    options += ["--hollow"] if arguments.hollow else []
    options += ["--concurrency", *map(str, arguments.concurrency)]
    return [*options, "--per-image", *map(str, arguments.per_image)]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench e2e",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        help="Default: all; without smaller-image if a "
        "checkpoint is given, as its image tower takes one size.",
    )
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--per-image", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--mode", choices=["force", "generate"], default="force")
    parser.add_argument("--max-tokens", type=int, default=10, help="Of an answer (generate).")
    parser.add_argument("--requests", type=int, default=16, help="Least questions of a cell.")
    parser.add_argument(
        "--baseline-questions", type=int, default=4, help="Timed in the reference's loop."
    )
    parser.add_argument("--checkpoint", default="", help="A trained one; else random.")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--image-tokens", type=int, default=256, help="A square: 256, 576, 1024.")
    parser.add_argument("--large", action="store_true", help="CLIP-L and ViT-H, not tiny ones.")
    parser.add_argument("--hollow", action="store_true", help="Weights filled in at random.")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--seats", type=int, default=256, help="Most sequences at once.")
    parser.add_argument("--kv-bytes", default="1G", help="KV cache; empty: what vLLM takes.")
    parser.add_argument("--compiled", action="store_true", help="Without --enforce-eager.")
    parser.add_argument("--flags", default="", help="Further ones for the servers, in one string.")
    parser.add_argument("--result", default="e2e", help="Name of the files.")
    parser.add_argument("--cell", choices=BASELINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.systems is None:
        arguments.systems = [one for one in SYSTEMS if one != SMALLER or not arguments.checkpoint]
    if arguments.checkpoint and SMALLER in arguments.systems:
        parser.error(f"{SMALLER} needs a checkpoint of its own: leave --checkpoint out")
    return arguments


if __name__ == "__main__":
    main()
