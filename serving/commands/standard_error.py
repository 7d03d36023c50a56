"""Where commands say how they get on."""

from __future__ import annotations

import os
import sys
from typing import IO, Any, cast

from rich.console import Console


class _StandardError:
    """`sys.stderr`; once that cannot be written to, what is said is lost and nothing fails."""

    @property
    def _file(self) -> IO[str]:
        # While rich shows a bar, it puts something of its own in the place of `sys.stderr`.
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError:
            self._lose()

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        # For the whole process: Python would fail at the end with what it could not write.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._file.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def new_console() -> Console:
    """A console on standard error, which may lose its terminal or whoever reads from its pipe."""
    return Console(file=cast(IO[str], _StandardError()))
