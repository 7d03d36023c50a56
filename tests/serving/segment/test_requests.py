"""The chat requests of a call, which share an image and its address."""

from __future__ import annotations

import base64
import weakref

from PIL import Image

from tests.pictures import encoded, gradient
from vllm_csp.images import NamedImage
from vllm_csp.serving.protocol import decoded_image_in
from vllm_csp.serving.segment.request import SegmentRequest

FILE = base64.b64encode(encoded(gradient(8, 6))).decode()
ADDRESS = [
    {"type": "image_url", "image_url": {"url": f"data:image/*;base64,{FILE}"}},
    {"type": "text", "text": "Where?"},
]


def test_an_image_is_rendered_once_and_then_let_go_of_whoever_keeps_the_messages() -> None:
    call = SegmentRequest(image=FILE, questions=["Where?"])
    image = NamedImage.of(Image.new("RGB", (8, 6)))
    gone = weakref.ref(image.image)
    request = call.chat_request("Where?", image)
    del image
    with decoded_image_in(request):
        # As vLLM's parser does.
        kept = request.messages[0]["content"]
        assert kept[0]["image_pil"].image.size == (8, 6)
        assert kept[1] == ADDRESS[1]
    assert gone() is None
    assert request.messages == [{"role": "user", "content": ADDRESS}]
    with decoded_image_in(request):
        assert request.messages == [{"role": "user", "content": ADDRESS}]


def test_questions_that_are_not_rendered_yet_keep_the_image() -> None:
    call = SegmentRequest(image=FILE, questions=["Where?", "What?"])
    image = NamedImage.of(Image.new("RGB", (8, 6)))
    first, second = (call.chat_request(question, image) for question in call.questions)
    # A long address is the same text for all.
    urls = [one.messages[0]["content"][0]["image_url"]["url"] for one in (first, second)]
    assert urls[0] is urls[1]
    with decoded_image_in(first):
        pass
    with decoded_image_in(second):
        assert second.messages[0]["content"][0]["image_pil"].image.size == (8, 6)
