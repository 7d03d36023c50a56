"""Parsers on whatever Hypothesis can think of: a result, or the one error that they promise."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from pydantic import ValidationError
from vllm.exceptions import VLLMClientError

from tests.robustness.carried import FILES, FORMATS, damaged_files
from tests.robustness.corpus.carriers import BOUNDARY, FINE_FILE, FORM, file_part, form, part
from tests.robustness.corpus.policies import NO_SECTIONS, SECTIONS
from tests.robustness.json_values import json_values, mutated
from vllm_csp.config import CspConfig
from vllm_csp.images import ImageError, decode_image
from vllm_csp.masks import decode_counts, decode_mask, encode_mask
from vllm_csp.media.addresses import is_public
from vllm_csp.media.connection import PublicConnection
from vllm_csp.media.connector import PublicMediaConnector
from vllm_csp.serving.batch.row import Rejected, Row
from vllm_csp.serving.batch.sources.request_file import RequestFile
from vllm_csp.serving.batch.sources.source import Asking
from vllm_csp.serving.protocol import SegmentationChatRequest
from vllm_csp.serving.segment.body import read_body
from vllm_csp.serving.segment.request import SegmentRequest
from vllm_csp.tokens.policies import policy

EXAMPLES = 150
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Any pixels, or large areas, which have other run lengths."""
    height, width = draw(SIZES)
    chance = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    mask = chance.random((height, width)) < draw(st.floats(0, 1))
    return np.kron(mask, np.ones((draw(st.integers(1, 30)), 1), bool)).astype(bool)


@fuzz
@given(masks(), st.sampled_from(["rle", "png"]))
def test_masks_come_back(mask: np.ndarray, mask_format: Any) -> None:
    made = json.loads(json.dumps(encode_mask(mask, 0.5, 0, mask_format)))
    assert (decode_mask(made) == mask).all()
    assert made["area"] == mask.sum()


@fuzz
@given(masks(), st.data())
def test_run_lengths_are_read_as_cocos_own_reader_does(
    mask: np.ndarray, data: st.DataObject
) -> None:
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert (decode_counts(rle["counts"], *mask.shape) == coco.decode(rle)).all()
    # With some signs changed, it may be read or refused, but no memory may be overwritten.
    signs = bytearray(rle["counts"])
    for _ in range(data.draw(st.integers(1, 3))):
        signs[data.draw(st.integers(0, len(signs) - 1))] = data.draw(st.integers(0, 255))
    _read_or_refuse(bytes(signs), mask.shape)


@fuzz
@given(st.one_of(st.text(), st.binary(), st.text("0123456789:;<=>?@PQ`ao")), SIZES)
def test_run_lengths_that_are_none(counts: str | bytes, size: tuple[int, int]) -> None:
    _read_or_refuse(counts, size)


def _read_or_refuse(counts: str | bytes, size: tuple[int, ...]) -> None:
    with contextlib.suppress(ValueError):
        assert decode_counts(counts, size[0], size[1]).shape == size


MOST_PIXELS = 1 << 16


@settings(parent=fuzz, max_examples=4 * EXAMPLES)
@given(damaged_files())
def test_damaged_files_are_read_or_refused(file: bytes) -> None:
    _decode(file)


@fuzz
@given(st.sampled_from(FORMATS), st.binary(max_size=200), st.integers(0, 40))
def test_noise_behind_the_beginning_of_a_file(kind: str, noise: bytes, kept: int) -> None:
    _decode(FILES[kind][:kept] + noise)


def _decode(file: bytes) -> None:
    try:
        image = decode_image(file, max_pixels=MOST_PIXELS)
    except ImageError as error:
        assert str(error)
        return
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= MOST_PIXELS


SHORT_LINE = {"custom_id": "a", "image": "cat.png", "question": "?", "image_id": 3, "mode": "force"}
CHAT_LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "lisa",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "cat.png"}},
                    {"type": "text", "text": "?"},
                ],
            }
        ],
    },
}


@fuzz
@given(
    st.lists(
        st.one_of(
            mutated(SHORT_LINE).map(lambda line: json.dumps(line).encode()),
            mutated(CHAT_LINE).map(lambda line: json.dumps(line).encode()),
            json_values().map(lambda line: json.dumps(line).encode()),
            st.binary(),
        ),
        max_size=4,
    )
)
def test_lines_of_a_batch_are_rows_or_rejected(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "in.jsonl"
        file.write_bytes(b"\n".join(lines))
        source = RequestFile(file, Path(folder), Asking("force"))
        rows = list(source.rows())
        assert len(rows) == source.count()
    for row in rows:
        assert isinstance(row, (Row, Rejected))
        if isinstance(row, Row):
            assert len(row.fingerprint()) == 16
            # What the journal writes of it.
            json.dumps({"custom_id": row.custom_id, **row.subject.fields()}).encode()
            row.body_with("data:image/png;base64,").keys()


@fuzz
@given(
    st.one_of(
        json_values(),
        *(mutated(section) for section in SECTIONS.values() if len(str(section)) < 1000),
    )
)
def test_settings_are_read_or_refused_by_name(section: Any) -> None:
    try:
        CspConfig.from_section(section, "the settings")
    except ValueError as error:
        assert "the settings" in str(error)
        assert len(str(error)) < 20_000


@pytest.mark.parametrize(
    "section", {**SECTIONS, **NO_SECTIONS}.values(), ids={**SECTIONS, **NO_SECTIONS}
)
def test_settings_that_no_server_starts_with(section: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        config = CspConfig.from_section(section, "the settings")
        policy(config.policy, 8, 256, **config.knobs)


CALL = {
    "image": "data:image/png;base64,AAAA",
    "questions": ["?"],
    "mode": "force",
    "policy": {"policy": "csp"},
    "max_tokens": 5,
    "temperature": 0.5,
}


@fuzz
@given(st.one_of(mutated(CALL), json_values()))
def test_calls_are_read_or_refused(document: Any) -> None:
    try:
        request = SegmentRequest.model_validate_json(json.dumps(document))
    except ValidationError:
        return
    assert request.questions


@fuzz
@given(
    st.one_of(
        mutated({**CHAT_LINE["body"], "segmentation": {"mode": "force"}, "n": 1}), json_values()
    )
)
def test_chats_are_read_or_refused(document: Any) -> None:
    """A `ValidationError` or an error of vLLM's is a 400, anything else would be a 500."""
    with contextlib.suppress(ValidationError, VLLMClientError):
        SegmentationChatRequest.model_validate(document)


PARTS = st.one_of(
    st.just(file_part(FINE_FILE)),
    st.builds(
        part,
        st.one_of(st.sampled_from(["image", "questions", "mode", "policy"]), st.text()),
        st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "replace"))),
        st.sampled_from(["", '; filename="a"', "\r\nContent-Type: text/html", "\r\nnonsense"]),
    ).filter(bool),
    st.binary(max_size=50),
    st.just(f"--{BOUNDARY}--\r\n".encode()),
)


def _form_of(parts: list[bytes]) -> bytes:
    return form(*parts)


@fuzz
@given(
    st.one_of(st.lists(PARTS, max_size=6).map(_form_of), st.binary()),
    st.one_of(st.just(FORM), st.text(max_size=40).map(lambda text: f"multipart/form-data; {text}")),
)
def test_forms_are_read_or_refused(body: bytes, kind: str) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode("utf-8", "replace"))]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "app": None}
    with contextlib.suppress(RequestValidationError, HTTPException):
        asyncio.run(read_body(Request(scope, receive)))


@fuzz
@given(
    st.one_of(
        st.text(),
        st.text().map(lambda text: f"http://{text}/a.png"),
        st.ip_addresses().map(lambda address: f"http://{address}/"),
        st.ip_addresses(v=6).map(lambda address: f"http://[{address}]:80/"),
        st.integers(0, 1 << 40).map(lambda number: f"http://{number}/"),
        st.integers(0, 1 << 40).map(lambda number: f"http://{number:#x}/"),
    )
)
def test_addresses_are_checked_or_refused(url: str) -> None:
    """No address that is not public passes, however it is written."""
    try:
        checked = PublicConnection()._checked(url)
    except (VLLMClientError, OSError):
        return
    host = checked.host or ""
    if host.replace(".", "").isdigit() or ":" in host:
        assert is_public(host)


@fuzz
@given(st.one_of(st.binary().map(lambda data: base64.b64encode(data).decode()), st.text()))
def test_what_is_no_picture_in_base64_is_refused(text: str) -> None:
    url = f"data:image/png;base64,{text}"
    with pytest.raises(VLLMClientError):
        asyncio.run(PublicMediaConnector().fetch_image_async(url))
