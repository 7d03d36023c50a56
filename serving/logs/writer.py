"""Writes the lines: JSON by themselves, or text in vLLM's log."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from vllm.logger import init_logger

from vllm_csp.server_settings import LogFormat

MOST_CHARACTERS = 200  # of a path


class RequestLogWriter:
    """One line per request on stdout. It has no contents: neither pictures nor questions."""

    def __init__(self, log_format: LogFormat) -> None:
        if log_format == "json":
            self._logger = logging.getLogger("vllm_csp.requests")
            self._logger.propagate = False
            self._logger.setLevel(logging.INFO)
            # vLLM's formats would put something in front of the object.
            self._logger.handlers = [logging.StreamHandler(sys.stdout)]
        else:
            self._logger = init_logger("vllm.plugins.vllm_csp.requests")
        self._format = log_format

    def write(self, fields: Mapping[str, Any]) -> None:
        """Log a request."""
        if self._format == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = {"time": now, "level": "info", "event": "request", **fields}
            self._logger.info("%s", json.dumps(line))
        else:
            self._logger.info("%s", text_line(fields))


def text_line(fields: Mapping[str, Any]) -> str:
    """What a request's line says as text: the fields that have a value."""
    shown = {k: v for k, v in fields.items() if v is not None and v is not False}
    return " ".join(["request", *(f"{key}={value}" for key, value in shown.items())])


def loggable_path(path: str) -> str:
    """A path as it may stand in a log: printable, in one line, not long."""
    printable = "".join(one if one.isprintable() and one != " " else "?" for one in path)
    return printable[:MOST_CHARACTERS]
