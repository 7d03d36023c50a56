"""What handlers tell of a request, for its line in the log."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

NOTE = "vllm_csp.note"


@dataclass
class RequestNote:
    """Filled in while a request is answered."""

    questions: int = 0
    masks: int = 0


def note_of(raw_request: Request | None) -> RequestNote:
    """The request's note; one that nobody reads for requests that did not come by HTTP."""
    note = None if raw_request is None else raw_request.scope.get(NOTE)
    return RequestNote() if note is None else note
