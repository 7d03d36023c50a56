"""Puts a middleware around all that an app has already."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.types import ASGIApp


def put_around(app: FastAPI, make: Callable[[ASGIApp], ASGIApp]) -> None:
    """`make` gets what was outermost; vLLM's app takes no middleware once it is built."""
    app.middleware_stack = make(app.middleware_stack or app.build_middleware_stack())
