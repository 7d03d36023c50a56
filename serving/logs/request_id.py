"""The id of a request: the client's, if it can be trusted in logs and headers, or a new one."""

from __future__ import annotations

import re
import uuid

from starlette.types import Scope

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def take_request_id(scope: Scope) -> str:
    """The id, which the request then has as its only header of that name.

    vLLM names its own requests by the header, so logs, spans and answers agree.
    """
    given = [value for name, value in scope["headers"] if name == HEADER]
    sane = len(given) == 1 and _SANE.fullmatch(given[0]) is not None
    value = given[0] if sane else uuid.uuid4().hex.encode()
    others = [pair for pair in scope["headers"] if pair[0] != HEADER]
    scope["headers"] = [*others, (HEADER, value)]
    return value.decode()
