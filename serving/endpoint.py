"""Entry point of `vllm.endpoint_plugins`: our routes on vLLM's API server."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.chat_completion import api_router as vllm_chat
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from vllm_csp.plugin import ARCHITECTURE
from vllm_csp.serving.chat import SegmentationChat
from vllm_csp.serving.protocol import SegmentationChatRequest

router = APIRouter()


@router.post("/v1/chat/completions", dependencies=[Depends(validate_json_request)])
async def create_chat_completion(request: SegmentationChatRequest, raw_request: Request) -> Any:
    """OpenAI chat completion; answers about an image carry `choices[i].message.masks`."""
    return await vllm_chat.create_chat_completion(request, raw_request)


class SegmentationEndpoint:
    """Replaces the chat route by one that knows `segmentation`."""

    name = "vllm_csp"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Called by vLLM after its own routes are attached."""
        app.include_router(router)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Take over the chat handler when the served model is LISA."""
        chat = getattr(state, "openai_serving_chat", None)
        if engine_client is None or chat is None:
            return
        config = engine_client.vllm_config
        if config.model_config.architecture == ARCHITECTURE:
            state.openai_serving_chat = SegmentationChat.adopt(chat, config)
