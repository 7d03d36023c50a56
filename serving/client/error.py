"""What a server says when it refuses a request."""

from __future__ import annotations

import httpx


class ServerError(RuntimeError):
    """The server refused a request; the message is the server's, `status` the HTTP status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @classmethod
    def of(cls, response: httpx.Response) -> ServerError:
        """The error of a response whose status is not 200."""
        status = response.status_code
        try:
            error = response.json()["error"]
            message = error["message"] if isinstance(error, dict) else str(error)
        except (ValueError, KeyError, TypeError):
            message = response.text[:300]
        return cls(f"{status}: {message}", status)
