"""What became of a row: one line of the output, in the form of OpenAI's batch output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm_csp.serving.batch.row import Rejected, Row

OK = 200
PREFIX = "batch_req_"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no answer; code: short and fixed, message: for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one row: the server's last answer, if there was one, and what failed, if anything did."""

    row: Row
    status: int | None = None
    body: dict[str, Any] | None = None
    failure: Failure | None = None

    def line(self) -> dict[str, Any]:
        """The JSON object for the output."""
        response = None
        if self.status is not None:
            body = self.body or {}
            request_id = body.get("id")
            response = {"status_code": self.status, "request_id": request_id, "body": body}
        return {
            "id": PREFIX + self.row.fingerprint(),
            "custom_id": self.row.custom_id,
            "response": response,
            "error": _error(self.failure),
            "input": {"place": self.row.place, **self.row.subject.fields()},
        }


def rejected_line(rejected: Rejected) -> dict[str, Any]:
    """The JSON object for a row that was not asked."""
    return {
        "id": None,
        "custom_id": rejected.custom_id,
        "response": None,
        "error": _error(Failure(rejected.code, rejected.message)),
        "input": {"place": rejected.place},
    }


def succeeded(line: dict[str, Any]) -> bool:
    """Whether a line of the output holds an answer."""
    response = line["response"]
    return line["error"] is None and response is not None and response["status_code"] == OK


def is_line(line: object) -> bool:
    """Whether a JSON value is a line of an output."""
    return (
        isinstance(line, dict)
        and {"id", "custom_id", "response", "error", "input"} <= line.keys()
        and isinstance(line["input"], dict)
        and isinstance(line["input"].get("place"), int)
    )


def masks_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The masks of all choices of a chat completion."""
    return [mask for choice in body["choices"] for mask in choice["message"]["masks"]]


def _error(failure: Failure | None) -> dict[str, str] | None:
    return None if failure is None else {"code": failure.code, "message": failure.message}
