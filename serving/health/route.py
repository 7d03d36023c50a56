"""The route of `GET /ready`; it tells a state and nothing else, and needs no key."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from vllm_csp.serving.health.readiness import Readiness, State

router = APIRouter()


@router.get("/ready", responses={503: {"description": "Not ready: `state` says in which way"}})
async def ready(raw_request: Request) -> JSONResponse:
    """Whether masks are made: 200 with `{"state": "ready"}`, else 503 with another state.

    Answers at once. If the last mask is older than `probe_seconds`, a tiny one is asked for, and
    what comes of it shows in later answers.
    """
    readiness: Readiness | None = getattr(raw_request.app.state, "csp_readiness", None)
    if readiness is None:
        # Another model than LISA.
        return JSONResponse({"state": State.READY})
    readiness.look()
    state = readiness.state()
    status = HTTPStatus.OK if state is State.READY else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"state": state}, status_code=status)
