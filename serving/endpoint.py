"""Entry point of `vllm.endpoint_plugins`: our routes on vLLM's API server."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.datastructures import State
from starlette.middleware import Middleware
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.chat_completion import api_router as vllm_chat
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from vllm_csp.plugin import ARCHITECTURE
from vllm_csp.serving.around import put_around
from vllm_csp.serving.chat import SegmentationChat
from vllm_csp.serving.error_route import ErrorRoute
from vllm_csp.serving.guard import guard
from vllm_csp.serving.health import route as health_route
from vllm_csp.serving.limits.middleware import LimitsMiddleware
from vllm_csp.serving.logs.middleware import RequestLog
from vllm_csp.serving.logs.writer import RequestLogWriter
from vllm_csp.serving.page.shell import PageShell
from vllm_csp.serving.protocol import SegmentationChatRequest
from vllm_csp.serving.segment import route as segment_route
from vllm_csp.serving.segment.handler import SegmentHandler

router = APIRouter(route_class=ErrorRoute)


@router.post("/v1/chat/completions", dependencies=[Depends(validate_json_request)])
async def create_chat_completion(request: SegmentationChatRequest, raw_request: Request) -> Any:
    """OpenAI chat completion; answers about an image carry `choices[i].message.masks`."""
    return await vllm_chat.create_chat_completion(request, raw_request)


router.include_router(segment_route.router)


class SegmentationEndpoint:
    """Replaces the chat route by one that knows `segmentation`; adds `/v1/segment` and its page."""

    name = "vllm_csp"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Called by vLLM after its own routes are attached."""
        app.include_router(router)
        app.include_router(health_route.router)
        # Innermost: who lacks the key has no body read and takes no room.
        app.user_middleware.append(Middleware(LimitsMiddleware))
        self._app = app

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Take over the chat handler when the served model is LISA."""
        chat = getattr(state, "openai_serving_chat", None)
        if engine_client is None or chat is None:
            return
        config = engine_client.vllm_config
        if config.model_config.architecture == ARCHITECTURE:
            adopted = SegmentationChat.adopt(chat, config)
            state.openai_serving_chat = adopted
            state.csp_segment = SegmentHandler(adopted)
            if adopted.settings.page:
                # Around vLLM's key check: the shell holds no data, and asks for the key itself.
                put_around(self._app, PageShell)
            if config.observability_config.otlp_traces_endpoint is not None:
                from vllm_csp.serving.tracing.middleware import RequestTrace

                put_around(self._app, RequestTrace)
            writer = RequestLogWriter(adopted.settings.server.log_format)
            put_around(self._app, partial(RequestLog, writer=writer))
            guard(self._app, engine_client, adopted)
