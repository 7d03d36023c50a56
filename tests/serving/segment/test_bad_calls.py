"""Calls of `/v1/segment` that cannot be answered get a 4xx that says why."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from tests.pictures import data_url, encoded, gradient
from tests.server import Server

FILE = encoded(gradient(64, 48))
FINE = {"image": data_url(FILE), "questions": ["What is this?"]}


def refused(server: Server, status: int = 400, **request: Any) -> str:
    with server.client() as client:
        reply = client.post("/v1/segment", **request)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["code"] == status
    return str(error["message"])


JSON: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"image": None}, "image"),
    "an empty image": ({"image": ""}, "image"),
    "no questions": ({"questions": []}, "questions"),
    "one question as a text": ({"questions": "What?"}, "questions"),
    "an empty question": ({"questions": ["What?", " "]}, "questions"),
    "too many questions": ({"questions": ["What?"] * 65}, "at most 64"),
    "an unknown field": ({"question": "What?"}, "question"),
    "an unknown mode": ({"mode": "forced"}, "'generate' or 'force'"),
    "an unknown format": ({"mask_format": "jpeg"}, "'rle' or 'png'"),
    "an unknown template": ({"conv_template": "vicuna"}, "llava_llama_2"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "a negative temperature": ({"temperature": -1}, "temperature"),
    "a policy that the server's layout excludes": (
        {"policy": {"policy": "csp"}},
        "a request may change how tokens are chosen",
    ),
    "a setting of the server as a policy": (
        {"policy": {"policy": "dense", "sam_quantization": "int8", "page": False}},
        "page, sam_quantization can be set when a server starts",
    ),
    "a wrong policy": ({"policy": {"policy": "guess"}}, "guess"),
    "not base64": ({"image": "%%%%"}, "base64"),
    "a data URL without base64": ({"image": "data:image/png;base64"}, "Invalid data URL"),
    "a text as data": ({"image": "data:text/plain,hello"}, "base64"),
    "no image file": ({"image": data_url(b"not an image")}, "cannot identify image"),
    "half an image": ({"image": data_url(FILE[: len(FILE) // 2])}, "truncated"),
    "another protocol": ({"image": "ftp://127.0.0.1/a.png"}, "HTTP, data or file URL"),
    "a local file": ({"image": "file:///etc/passwd"}, "local"),
    "too many pixels": (
        {"image": data_url(encoded(Image.new("1", (20000, 20000))))},
        "too many pixels",
    ),
    "a mode without colours": (
        {"image": data_url(encoded(gradient(9, 9).convert("F"), "TIFF"), "tiff")},
        "mode F",
    ),
}


@pytest.mark.parametrize(("fields", "reason"), JSON.values(), ids=JSON)
def test_wrong_fields(server: Server, fields: dict[str, Any], reason: str) -> None:
    assert reason in refused(server, json={**FINE, **fields})


def test_a_wrong_model(server: Server) -> None:
    assert "`another` does not exist" in refused(server, 404, json={**FINE, "model": "another"})


def test_a_private_address_is_refused(server: Server) -> None:
    said = refused(server, json={**FINE, "image": "http://127.0.0.1:1/a.png"})
    assert "127.0.0.1" in said


BODIES: dict[str, tuple[bytes, str, int]] = {
    "no JSON": (b'{"image":', "application/json", 400),
    "a list": (b"[1]", "application/json", 400),
    "nothing": (b"", "application/json", 400),
    "not UTF-8": (b"\xff\xfe", "application/json", 400),
    "very deep": (b"[" * 100_000, "application/json", 400),
    "half a surrogate": (b'{"image": "\\ud800", "questions": ["a"]}', "application/json", 400),
    "no boundary": (b"--a\r\n", "multipart/form-data", 400),
    "half a form": (b"--a\r\nContent-Disp", "multipart/form-data; boundary=a", 400),
    "another type": (b"a=b", "application/x-www-form-urlencoded", 415),
    "an image alone": (FILE, "image/png", 415),
}


@pytest.mark.parametrize(("content", "kind", "status"), BODIES.values(), ids=BODIES)
def test_bodies_that_are_no_call(server: Server, content: bytes, kind: str, status: int) -> None:
    refused(server, status, content=content, headers={"Content-Type": kind})


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no file": ({"questions": ["What?"]}, {"other": ("a", b"a")}, "image"),
    "an empty file": ({"questions": ["What?"]}, {"image": ("a", b"")}, "cannot identify image"),
    "no question": ({"mode": "force"}, {"image": ("a", FILE)}, "questions"),
    "two modes": (
        {"questions": ["What?"], "mode": ["force", "generate"]},
        {"image": ("a", FILE)},
        "mode",
    ),
    "a policy that is no JSON": (
        {"questions": ["What?"], "policy": "csp"},
        {"image": ("a", FILE)},
        "policy",
    ),
    "many fields": (
        {"questions": ["What?"], **{f"field{i}": "a" for i in range(1200)}},
        {"image": ("a", FILE)},
        "Too many fields",
    ),
}


@pytest.mark.parametrize(("data", "files", "reason"), FORMS.values(), ids=FORMS)
def test_wrong_forms(
    server: Server, data: dict[str, Any], files: dict[str, Any], reason: str
) -> None:
    assert reason in refused(server, data=data, files=files)


def test_two_files(server: Server) -> None:
    files = [("image", ("a", FILE)), ("image", ("b", FILE))]
    assert "Too many files" in refused(server, data={"questions": ["What?"]}, files=files)


def test_openapi_documents_both_bodies_and_the_answer(server: Server) -> None:
    with server.client() as client:
        paths = client.get("/openapi.json").raise_for_status().json()
    operation = paths["paths"]["/v1/segment"]["post"]
    content = operation["requestBody"]["content"]
    as_json = content["application/json"]["schema"]["properties"]
    as_form = content["multipart/form-data"]["schema"]["properties"]
    assert set(as_json) == set(as_form) >= {"image", "questions", "mode", "policy", "model"}
    assert all(field["description"] for field in as_json.values())
    assert (as_json["mode"]["default"], as_form["image"]["format"]) == ("force", "binary")
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["$ref"].endswith("/SegmentResponse")
    mask = paths["components"]["schemas"]["Mask"]["properties"]
    assert "COCO" in mask["counts"]["description"]
