"""Clients that ask one request after the other, and now and then go away amid one."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import httpx

from benchmarks.latency import median_and_p95
from benchmarks.load.answers import Answer, difference, read_answer
from benchmarks.load.jobs import CHAT, Job, Kind, long_stream
from vllm_csp.serving.batch.connection import KEEPALIVE_SECONDS

Moment = Literal[
    "before the body is sent",
    "while queued",
    "after the first token",
    "mid-answer",
    "before the body is read",
]
MOMENTS: tuple[Moment, ...] = get_args(Moment)
SECONDS = 600
"""For one answer."""

MOST_NOTES = 20


@dataclass
class Tally:
    """What came of all requests. notes: the first failures and differences, in words."""

    answered: Counter[Kind] = field(default_factory=Counter)
    seconds: dict[Kind, list[float]] = field(default_factory=dict)
    aborted: Counter[Moment] = field(default_factory=Counter)
    failed: int = 0
    differ: int = 0
    busy: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a message, if there are not too many."""
        if len(self.notes) < MOST_NOTES:
            self.notes.append(text)


class Target:
    """A server."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._host, self._port = parts.hostname or "", parts.port or 80

    async def ask(self, client: httpx.AsyncClient, job: Job) -> httpx.Response:
        """Send a request and read the whole reply."""
        return await client.post(job.path, json=job.body, headers=self.headers)

    async def go_away(self, job: Job, moment: Moment, chance: random.Random) -> None:
        """Send a request and close the connection at a moment of its life."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            content = json.dumps(job.body).encode()
            head = [f"POST {job.path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
            head += [f"{name}: {value}" for name, value in self.headers.items()]
            head += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
            writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
            if moment == "before the body is sent":
                writer.write(content[: chance.randrange(len(content))])
                await writer.drain()
                await asyncio.sleep(chance.uniform(0, 0.2))
                return
            writer.write(content)
            await writer.drain()
            if moment == "while queued":
                await asyncio.sleep(chance.uniform(0, 0.5))
            elif moment == "before the body is read":
                await reader.readuntil(b"\r\n\r\n")
            else:
                events = 1 if moment == "after the first token" else chance.randint(4, 60)
                # The first event carries the role and no token.
                for _ in range(1 + events):
                    await reader.readuntil(b"data: ")
        finally:
            writer.transport.abort()


@dataclass(frozen=True)
class Load:
    """So many clients for so long."""

    target: Target
    jobs: list[Job]
    clients: int
    seconds: float
    aborts: float
    seed: int = 0

    async def alone(self) -> list[Answer]:
        """The answers to all requests, one at a time."""
        async with self._client() as client:
            found = []
            for job in self.jobs:
                reply = await self.target.ask(client, job)
                reply.raise_for_status()
                found.append(read_answer(job, reply.content))
            return found

    async def run(self, expected: list[Answer]) -> Tally:
        """All clients at once; each ends with the request it is at when the time is over."""
        tally = Tally()
        end = time.monotonic() + self.seconds
        await asyncio.gather(
            *(self._client_loop(number, end, expected, tally) for number in range(self.clients))
        )
        return tally

    def _client(self) -> httpx.AsyncClient:
        # Shorter than the server keeps a connection, which else may close as it is used again.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS)
        return httpx.AsyncClient(base_url=self.target.url, timeout=SECONDS, limits=limits)

    async def _client_loop(
        self, number: int, end: float, expected: list[Answer], tally: Tally
    ) -> None:
        chance = random.Random(f"{self.seed}.{number}")
        async with self._client() as client:
            while time.monotonic() < end:
                if chance.random() < self.aborts:
                    await self._abort(chance, tally)
                else:
                    which = chance.randrange(len(self.jobs))
                    await self._ask(client, self.jobs[which], expected[which], tally)

    async def _ask(
        self, client: httpx.AsyncClient, job: Job, expected: Answer, tally: Tally
    ) -> None:
        began = time.monotonic()
        try:
            reply = await self.target.ask(client, job)
            if reply.status_code == 503:
                tally.busy += 1
                await asyncio.sleep(float(reply.headers.get("Retry-After", 1)))
                return
            reply.raise_for_status()
            answer = read_answer(job, reply.content)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            tally.failed += 1
            tally.note(f"{job.kind}: {type(error).__name__}: {error!s:.300}")
            return
        tally.answered[job.kind] += 1
        tally.seconds.setdefault(job.kind, []).append(time.monotonic() - began)
        if differs := await asyncio.to_thread(difference, answer, expected):
            tally.differ += 1
            tally.note(f"{job.kind}: {differs}")

    async def _abort(self, chance: random.Random, tally: Tally) -> None:
        moment = chance.choice(MOMENTS)
        job: Job
        if moment in ("after the first token", "mid-answer"):
            job = Job("stream", CHAT, long_stream(chance.randrange(100)))
        else:
            job = chance.choice(self.jobs)
        try:
            async with asyncio.timeout(SECONDS):
                await self.target.go_away(job, moment, chance)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            tally.failed += 1
            tally.note(f"going away {moment}: {type(error).__name__}: {error!s:.300}")
            return
        tally.aborted[moment] += 1


def rows(tally: Tally) -> list[dict[str, Any]]:
    """A row per kind of request, and per moment of going away."""
    found: list[dict[str, Any]] = []
    for kind, count in sorted(tally.answered.items()):
        median, p95 = (round(one, 3) for one in median_and_p95(tally.seconds[kind]))
        row = {"what": kind, "count": count, "median_seconds": median, "p95_seconds": p95}
        found.append(row)
    found += [
        {"what": f"gone {moment}", "count": tally.aborted[moment]}
        for moment in MOMENTS
        if tally.aborted[moment]
    ]
    return found
