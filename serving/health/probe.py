"""A tiny real segmentation: what a client would ask, without HTTP."""

from __future__ import annotations

import os

from PIL import Image
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse

from vllm_csp.images import NamedImage
from vllm_csp.serving.chat import SegmentationChat
from vllm_csp.serving.segment.request import SegmentRequest

SIDE = 16
QUESTION = "What is this?"


class ProbeError(RuntimeError):
    """The server answered, but not with a mask."""


async def probe(chat: SegmentationChat) -> None:
    """Have one mask made of noise that no cache knows: encoders, prefill and mask decoder.

    Raises `ProbeError`, or whatever the chat handler raises.
    """
    noise = Image.frombytes("RGB", (SIDE, SIDE), os.urandom(3 * SIDE * SIDE))
    request = SegmentRequest(image="noise", questions=[QUESTION], mode="force")
    answer = await chat.create_chat_completion(request.chat_request(QUESTION, NamedImage.of(noise)))
    if not isinstance(answer, ChatCompletionResponse):
        raise ProbeError(str(getattr(answer, "error", answer)))
    masks = answer.choices[0].message.masks
    if len(masks) != 1 or masks[0]["size"] != [SIDE, SIDE]:
        raise ProbeError(f"one mask of {SIDE} x {SIDE} was expected, and {len(masks)} came")
