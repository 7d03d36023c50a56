"""What a server says of itself, by what its probes and its clients' masks tell."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from vllm_csp.server_settings import ServerSettings
from vllm_csp.serving.guard_metrics import GuardMetrics
from vllm_csp.serving.health.pulse import Pulse
from vllm_csp.serving.health.readiness import Readiness, State
from vllm_csp.serving.limits.admission import OverloadError

PROBE, STUCK = 0.05, 0.2


class Engine:
    """What its probes meet: a mask, an error, or a wait."""

    def __init__(self) -> None:
        self.probes = 0
        self.error: Exception | None = None
        self.errored = False
        self.works = asyncio.Event()
        self.works.set()

    async def probe(self) -> None:
        self.probes += 1
        if self.error is not None:
            raise self.error
        await self.works.wait()


class Core:
    """vLLM's engine client, as far as the pulse needs it."""

    async def get_output_async(self) -> str:
        return "an output"


class Client:
    def __init__(self) -> None:
        self.engine_core = Core()


async def looked(readiness: Readiness) -> State:
    """The state soon after someone has asked."""
    readiness.look()
    await asyncio.sleep(0.01)
    return readiness.state()


def of(engine: Engine, pulse: Pulse) -> Readiness:
    settings = ServerSettings(probe_seconds=PROBE, stuck_seconds=STUCK)
    return Readiness(engine.probe, pulse, settings, lambda: engine.errored)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_ready_is_who_has_made_a_mask() -> None:
    async def test() -> None:
        engine, pulse = Engine(), Pulse()
        readiness = of(engine, pulse)
        assert readiness.state() is State.STARTING
        assert GuardMetrics.instance().ready._value.get() == 0
        engine.works.clear()
        assert await looked(readiness) is State.STARTING
        engine.works.set()
        assert await looked(readiness) is State.READY
        assert GuardMetrics.instance().ready._value.get() == 1
        assert engine.probes == 1

    run(test())


def test_nothing_is_probed_while_clients_get_masks_or_nobody_asks() -> None:
    async def test() -> None:
        engine, pulse = Engine(), Pulse()
        readiness = of(engine, pulse)
        assert await looked(readiness) is State.READY
        for _ in range(6):
            await asyncio.sleep(PROBE / 2)
            pulse.prove()
            assert await looked(readiness) is State.READY
        assert engine.probes == 1
        await asyncio.sleep(2 * PROBE)
        assert (readiness.state(), engine.probes) == (State.READY, 1)
        assert await looked(readiness) is State.READY
        assert engine.probes == 2

    run(test())


@pytest.mark.parametrize("proof", ["probe", "client"])
def test_silence_is_being_stuck_until_a_mask_comes(proof: str) -> None:
    async def test() -> None:
        engine, pulse = Engine(), Pulse()
        readiness = of(engine, pulse)
        assert await looked(readiness) is State.READY
        await asyncio.sleep(PROBE)
        engine.works.clear()
        assert await looked(readiness) is State.READY
        await asyncio.sleep(1.2 * STUCK)
        assert await looked(readiness) is State.STUCK
        assert engine.probes == 2
        if proof == "probe":
            engine.works.set()
            await asyncio.sleep(0.01)
        else:
            pulse.prove()
        assert readiness.state() is State.READY

    run(test())


def test_who_gives_out_anything_is_not_stuck() -> None:
    async def test() -> None:
        engine, pulse, client = Engine(), Pulse(), Client()
        pulse.listen(client)  # type: ignore[arg-type]
        readiness = of(engine, pulse)
        assert await looked(readiness) is State.READY
        await asyncio.sleep(PROBE)
        engine.works.clear()
        for _ in range(6):
            assert await looked(readiness) is State.READY
            await asyncio.sleep(STUCK / 2)
            assert await client.engine_core.get_output_async() == "an output"
        await asyncio.sleep(1.2 * STUCK)
        assert readiness.state() is State.STUCK

    run(test())


def test_a_full_queue_is_no_failure_but_silence_in_it_is() -> None:
    async def test() -> None:
        engine, pulse = Engine(), Pulse()
        readiness = of(engine, pulse)
        assert await looked(readiness) is State.READY
        await asyncio.sleep(PROBE)
        engine.error = OverloadError(1)
        assert await looked(readiness) is State.READY
        await asyncio.sleep(1.2 * STUCK)
        assert await looked(readiness) is State.STUCK
        engine.error = None
        assert await looked(readiness) is State.READY

    run(test())


def test_an_error_is_a_failure_until_a_mask_comes() -> None:
    async def test() -> None:
        engine, pulse = Engine(), Pulse()
        readiness = of(engine, pulse)
        engine.error = RuntimeError("the mask decoder is broken")
        assert await looked(readiness) is State.FAILING
        assert await looked(readiness) is State.FAILING
        assert engine.probes == 2
        engine.error = None
        assert await looked(readiness) is State.READY

    run(test())


def test_who_ends_is_not_ready_and_not_probed() -> None:
    async def test() -> None:
        engine, pulse = Engine(), Pulse()
        readiness = of(engine, pulse)
        engine.errored = True
        assert await looked(readiness) is State.DEAD
        # An engine that a draining server has shut down has not died.
        readiness.draining = True
        assert await looked(readiness) is State.DRAINING
        assert engine.probes == 0

    run(test())
