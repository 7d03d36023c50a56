"""The route of `POST /v1/segment`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import load_aware_call, with_cancellation
from vllm.exceptions import VLLMNotFoundError

from vllm_csp.serving.segment.body import BODY_SCHEMA, read_body
from vllm_csp.serving.segment.handler import SegmentHandler
from vllm_csp.serving.segment.request import SegmentRequest
from vllm_csp.serving.segment.response import SegmentResponse

router = APIRouter()


@router.post(
    "/v1/segment",
    response_model=SegmentResponse,
    responses={
        400: {"model": ErrorResponse, "description": "Wrong fields, too many questions, no image"},
        404: {"model": ErrorResponse, "description": "No such model"},
        413: {"model": ErrorResponse, "description": "The body is larger than the server takes"},
        415: {"model": ErrorResponse, "description": "Neither JSON nor a form"},
        422: {"model": ErrorResponse, "description": "The image's address cannot be fetched"},
        503: {"model": ErrorResponse, "description": "No room for as many requests now"},
    },
    openapi_extra=BODY_SCHEMA,
)
@with_cancellation
@load_aware_call
async def segment(
    request: Annotated[SegmentRequest, Depends(read_body)], raw_request: Request
) -> JSONResponse:
    """Segment one image by many questions.

    The image is sent, decoded and encoded once. A question that fails carries `error` in its
    result; the status is an error's only if every question failed.
    """
    handler: SegmentHandler | None = getattr(raw_request.app.state, "csp_segment", None)
    if handler is None:
        raise VLLMNotFoundError("the served model does not segment")
    answer = await handler.segment(request, raw_request)
    if isinstance(answer, ErrorResponse):
        return JSONResponse(answer.model_dump(), status_code=answer.error.code)
    return JSONResponse(answer.model_dump(exclude_none=True))
