"""Errors of our routes: in OpenAI's form, and short."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import fastapi
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from vllm.exceptions import VLLMError

MOST_LETTERS = 2000


class ErrorRoute(APIRoute):
    """A route whose errors are put in OpenAI's form and repeat no long value of the request.

    For a body that is no JSON or no UTF-8, FastAPI raises Starlette's kind of error; vLLM puts only
    FastAPI's own kind in OpenAI's form.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with that kind of error."""
        handle = super().get_route_handler()

        async def handle_with_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                raise fastapi.HTTPException(
                    error.status_code, error.detail, dict(error.headers or {})
                ) from error
            except VLLMError as error:
                if len(str(error)) > MOST_LETTERS:
                    _shorten(error)
                raise

        return handle_with_errors


def _shorten(error: VLLMError) -> None:
    if hasattr(error, "value"):
        error.value = None
    error.args = (f"{str(error.args[0]) if error.args else '':.{MOST_LETTERS}}", *error.args[1:])
