"""Clients of which some go away: a short form of `python -m benchmarks.load`."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.load.clients import Load, Tally, Target
from benchmarks.load.held import held_in_the_end
from benchmarks.load.jobs import jobs
from benchmarks.load.memory import trend
from tests.robustness.conftest import Golden
from tests.server import Server

CLIENTS = 8
SECONDS = 10


@pytest.mark.timeout(600)
def test_nobody_notices_those_who_go_away(server: Server, unharmed: Golden) -> None:
    """Answers are those that the same requests get alone, and in the end nothing is held."""
    target = Target(server.url, server.key)

    async def run() -> tuple[Tally, dict[str, float]]:
        load = Load(target, jobs()[::2], CLIENTS, SECONDS, aborts=0.3)
        tally = await load.run(await load.alone())
        return tally, await held_in_the_end(server.url, target.headers)

    tally, left = asyncio.run(run())
    assert tally.notes == []
    assert tally.failed == tally.differ == tally.busy == 0
    assert sum(tally.answered.values()) >= CLIENTS / 2
    assert sum(tally.aborted.values()) > 0
    assert not any(left.values()), left


def test_growth_is_told_from_noise() -> None:
    noise = [(float(second), 100 + (second * 7919 % 13) / 5) for second in range(300)]
    leak = [(second, size + 0.05 * second) for second, size in noise]
    warm_up = [(second, size + 200 * min(second, 60) / 60) for second, size in noise]
    assert trend(noise)["within_noise"]
    assert not trend(leak)["within_noise"]
    assert trend(leak)["slope_mib_per_minute"] == pytest.approx(3, rel=0.1)
    assert trend(warm_up)["within_noise"]
