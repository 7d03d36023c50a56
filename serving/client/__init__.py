"""Asks a running server for masks; needs neither vLLM nor torch."""

from vllm_csp.serving.client.ask import ask_server
from vllm_csp.serving.client.asynchronous import AsyncClient
from vllm_csp.serving.client.body import ChatOptions, SegmentOptions, chat_body
from vllm_csp.serving.client.error import ServerError
from vllm_csp.serving.client.synchronous import Client
from vllm_csp.serving.picture import ImageLike, image_data_url
from vllm_csp.serving.segment.response import Mask, SegmentError, SegmentResponse, SegmentResult

__all__ = [
    "AsyncClient",
    "ChatOptions",
    "Client",
    "ImageLike",
    "Mask",
    "SegmentError",
    "SegmentOptions",
    "SegmentResponse",
    "SegmentResult",
    "ServerError",
    "ask_server",
    "chat_body",
    "image_data_url",
]
