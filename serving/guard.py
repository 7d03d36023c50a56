"""Puts limits, readiness and an orderly end in place on a server whose model is LISA."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI
from vllm.engine.protocol import EngineClient

from vllm_csp.serving.chat import SegmentationChat
from vllm_csp.serving.health.ending import Ending
from vllm_csp.serving.health.probe import probe
from vllm_csp.serving.health.readiness import Readiness
from vllm_csp.serving.limits.admission import Admission
from vllm_csp.serving.limits.bodies import Bodies
from vllm_csp.serving.limits.middleware import Limits


def guard(app: FastAPI, engine: EngineClient, chat: SegmentationChat) -> None:
    """Set `app.state.csp_limits` and `.csp_readiness`; needs the running loop of the server."""
    settings = chat.settings.server
    chat.pulse.listen(engine)
    readiness = Readiness(
        partial(probe, chat), chat.pulse, settings, engine_errored=lambda: bool(engine.errored)
    )
    ending = Ending(engine, readiness, settings.drain_seconds, lambda: app.state.server)
    limits = Limits(Bodies(settings), Admission(settings.max_held_requests), ending.closed)
    ending.install(limits)
    app.state.csp_limits = limits
    app.state.csp_readiness = readiness
    # The first proof is made before anyone asks for it.
    readiness.look()
