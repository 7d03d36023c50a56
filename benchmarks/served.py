"""Measures a policy through a server of its own."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import shlex
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.calls import Call, calls, checked_calls, plan
from benchmarks.cells import LOGS
from benchmarks.latency import median_and_p95
from benchmarks.metrics import summed
from benchmarks.model_options import checkpoint_of
from benchmarks.random_weights import LOAD_FORMAT, loading
from benchmarks.systems import POLICIES, SMALLER, SMALLER_TOKENS, system_and_size
from vllm_csp.serving.server import background_server


def measure_server(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The rows of a policy, the masks of the checked photos, and what the log says of memory."""
    kind, sam_size = system_and_size(name)
    settings = {**POLICIES["dense" if kind == SMALLER else kind], "sam_image_size": sam_size}
    seats = max(arguments.concurrency) * max(arguments.per_image)
    flags = [
        *("--dtype", arguments.dtype, "--max-model-len", str(arguments.max_model_len)),
        *("--max-num-seqs", str(min(seats, arguments.seats)), "--served-model-name", "lisa"),
        *("--additional-config", json.dumps({"csp": settings})),
        *([] if arguments.compiled else ["--enforce-eager"]),
        *(["--load-format", LOAD_FORMAT] if arguments.hollow else []),
        *shlex.split(arguments.flags),
    ]
    if arguments.kv_bytes:
        flags += ["--kv-cache-memory-bytes", arguments.kv_bytes]
    checkpoint = checkpoint_of(arguments, SMALLER_TOKENS if kind == SMALLER else 0)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"server-{name}.log"
    more = loading() if arguments.hollow else {}
    with background_server(checkpoint, flags, log, 1200, more) as url:
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
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        checked = await _run(client, checked_calls(arguments), 1, arguments)
        rows = []
        for cell in plan(arguments):
            clients, per_image = cell.clients, cell.per_image
            wanted = cell.calls(arguments.scenes)
            first = 500_000 + 1000 * clients + 100 * per_image
            warm_up = calls(clients, per_image, first, arguments.scenes)
            await _run(client, warm_up, clients, arguments)
            before = await _counters(client)
            began = time.perf_counter()
            done = await _run(client, wanted, clients, arguments)
            seconds = time.perf_counter() - began
            after = await _counters(client)
            median, p95 = median_and_p95([one["seconds"] for one in done])
            rows.append(
                {
                    "concurrency": clients,
                    "per_image": per_image,
                    "rate": sum(len(one.questions) for one in wanted) / seconds,
                    "p50_ms": 1e3 * median,
                    "p95_ms": 1e3 * p95,
                    **{name: after[name] - before[name] for name in after},
                }
            )
    return {"rows": rows, "masks": [masks for one in checked for masks in one["masks"]]}


async def _run(
    client: httpx.AsyncClient, wanted: list[Call], clients: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    bodies = [
        {
            "image": base64.b64encode(one.file).decode(),
            "questions": one.questions,
            "mode": arguments.mode,
            **({"max_tokens": arguments.max_tokens} if arguments.mode == "generate" else {}),
        }
        for one in wanted
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
            masks = [one["masks"] for one in results]
            done.append({"seconds": time.perf_counter() - began, "masks": masks})

    await asyncio.gather(*(ask() for _ in range(clients)))
    return done


async def _counters(client: httpx.AsyncClient) -> dict[str, float]:
    """What was reused so far: image embeddings, and tokens whose keys and values were there."""
    names = {
        "sam_hits": "vllm_csp:sam_cache_hits_total",
        "prefix_tokens": "vllm:prefix_cache_hits_total",
    }
    found = summed((await client.get("/metrics")).text, names.values())
    return {name: found[metric] for name, metric in names.items()}
