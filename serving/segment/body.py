"""Reads the body of `POST /v1/segment`: JSON or a form with a file."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException as FormError

from vllm_csp.serving.segment.request import SegmentRequest


async def read_body(raw_request: Request) -> SegmentRequest:
    """The request of either kind of body.

    Raises `RequestValidationError` (400) naming the wrong field, `HTTPException` (415) for another
    content type.
    """
    content_type = raw_request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if content_type == "application/json":
            return SegmentRequest.model_validate_json(await raw_request.body())
        if content_type == "multipart/form-data":
            async with raw_request.form(max_files=1) as form:
                return SegmentRequest.model_validate(await _fields(form))
    except ValidationError as error:
        # Without the input: a message or a log line needs no image.
        errors = error.errors(include_url=False, include_input=False)
        raise RequestValidationError(errors) from error
    except FormError as error:
        # Starlette's own kind would not get OpenAI's form of errors.
        raise HTTPException(error.status_code, error.detail) from error
    raise HTTPException(
        415, f"send application/json or multipart/form-data, not {content_type or 'nothing'}"
    )


async def _fields(form: FormData) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in form:
        values = [await _value(value) for value in form.getlist(name)]
        # Everything else is given once; a second value is refused as a list by the model.
        fields[name] = values if name == "questions" or len(values) > 1 else values[0]
    if isinstance(fields.get("policy"), str):
        fields["policy"] = _object(fields["policy"])
    return fields


async def _value(value: UploadFile | str) -> str:
    if isinstance(value, str):
        return value
    return "data:image/*;base64," + base64.b64encode(await value.read()).decode("ascii")


def _object(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text  # which the model then refuses by name


def _form_schema() -> dict[str, Any]:
    schema = SegmentRequest.model_json_schema()
    properties = {**schema["properties"]}
    properties["image"] = {
        "type": "string",
        "format": "binary",
        "description": "The image file.",
    }
    properties["questions"] = {
        **properties["questions"],
        "description": "One field of this name per question.",
    }
    properties["policy"] = {
        "type": "string",
        "contentMediaType": "application/json",
        "description": f"As JSON. {properties['policy']['description']}",
    }
    schema.pop("example")
    return {**schema, "properties": properties}


BODY_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": SegmentRequest.model_json_schema()},
            "multipart/form-data": {
                "schema": _form_schema(),
                "encoding": {"questions": {"style": "form", "explode": True}},
            },
        },
    }
}
"""For OpenAPI: FastAPI cannot tell the body of a route that reads it itself."""
