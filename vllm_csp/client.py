"""The Python client: `from vllm_csp.client import Client`."""

from vllm_csp.serving.client import (
    AsyncClient,
    ChatOptions,
    Client,
    ImageLike,
    Mask,
    SegmentError,
    SegmentOptions,
    SegmentResponse,
    SegmentResult,
    ServerError,
)

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
]
