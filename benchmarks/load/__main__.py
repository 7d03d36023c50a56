"""Clients at a server of their own, some of which go away; fails if anyone else notices.

    python -m benchmarks.load --clients 64 --minutes 10 --aborts 0.1 [--policy csp-65]

Serves LISA-mini, or asks a server that runs (`--base-url`), about held-out scenes. All
requests are asked once alone first; under load each client asks one after the other, and a share
`--aborts` of the requests is given up at one of five moments. Every other answer is compared with
the one alone: the same text, masks to IoU 0.999. In the end nothing may be held, and the memory of
the server's processes may not have grown. Writes benchmarks/results/load.json; the last line on
stdout is the same document. Exit code 1 if anything of that failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.load.answers import difference
from benchmarks.load.clients import Load, Target, rows
from benchmarks.load.held import held_in_the_end
from benchmarks.load.jobs import MODEL, jobs
from benchmarks.load.memory import Memory
from benchmarks.report import RESULTS, machine
from benchmarks.systems import POLICIES
from vllm_csp.mini import MINI
from vllm_csp.serving.server import background_server

FLAGS = (
    *("--dtype", "float32", "--enforce-eager", "--served-model-name", MODEL),
    *("--max-model-len", "1024", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "128M"),
)
# Fewer embeddings than pictures: some are always made again.
EMBEDDINGS = 8


def main() -> None:
    """Run, report, and say by the exit code whether all was well."""
    arguments = _arguments()
    if arguments.base_url:
        document = asyncio.run(measure(arguments, arguments.base_url))
    else:
        document = _with_own_server(arguments)
    if arguments.result:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{arguments.result}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
    sys.exit(bool(document["wrong"]))


def _with_own_server(arguments: argparse.Namespace) -> dict[str, Any]:
    checkpoint = arguments.checkpoint or str(MINI)
    flags = [*FLAGS, "--additional-config", json.dumps(_settings(arguments))]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with background_server(checkpoint, flags, log, time_limit=900) as url:
            return asyncio.run(measure(arguments, url, os.getpid()))


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"csp": {"embedding_cache_size": EMBEDDINGS, **POLICIES[arguments.policy]}}


async def measure(
    arguments: argparse.Namespace, url: str, parent: int | None = None
) -> dict[str, Any]:
    """The document of one run; parent: of the processes whose memory is watched."""
    target = Target(url, arguments.api_key)
    load = Load(
        target, jobs(), arguments.clients, 60 * arguments.minutes, arguments.aborts, arguments.seed
    )
    print("each request alone ...", file=sys.stderr, flush=True)
    expected = await load.alone()
    print(f"{load.clients} clients for {load.seconds:.0f} s ...", file=sys.stderr, flush=True)
    memory = Memory(parent) if parent else None
    began = time.monotonic()
    if memory:
        async with memory.watched():
            tally = await load.run(expected)
    else:
        tally = await load.run(expected)
    seconds = time.monotonic() - began
    left = await held_in_the_end(url, target.headers)
    print("each request alone again ...", file=sys.stderr, flush=True)
    again = await Load(target, load.jobs, 1, 0, 0).alone()
    sizes = memory.report() if memory else []
    wrong = []
    if tally.failed:
        wrong.append(f"{tally.failed} requests failed")
    if tally.differ:
        wrong.append(f"{tally.differ} answers differ from those alone")
    for job, later, before in zip(load.jobs, again, expected, strict=True):
        if differs := difference(later, before):
            wrong.append(f"asked alone after the load, {job.kind}: {differs}")
    wrong += [f"{name} is {value} in the end" for name, value in left.items() if value]
    wrong += [f"{one['process']} grows" for one in sizes if one["within_noise"] is False]
    answered = sum(tally.answered.values())
    return {
        "setting": {
            **{name: getattr(arguments, name) for name in ("clients", "minutes", "aborts", "seed")},
            "flags": list(FLAGS),
            **_settings(arguments),
            **machine(),
        },
        "seconds": round(seconds, 1),
        "answered": answered,
        "answered_per_second": round(answered / seconds, 2),
        "aborted": sum(tally.aborted.values()),
        "failed": tally.failed,
        "differ": tally.differ,
        "refused_busy": tally.busy,
        "rows": rows(tally),
        "memory": sizes,
        "held_in_the_end": left,
        "notes": tally.notes,
        "wrong": wrong,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--aborts", type=float, default=0.1, help="share of requests given up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="dense", choices=POLICIES, help="of the own server")
    parser.add_argument("--checkpoint", help="another checkpoint for the own server")
    parser.add_argument("--base-url", help="a server that runs, such as http://localhost:8000")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--result", default="load", help="name of the file in benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
