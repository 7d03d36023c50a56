"""The finished rows, one JSON line each, in a file that only grows."""

from __future__ import annotations

import fcntl
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from vllm_csp.durable import sync_folder


class BusyError(RuntimeError):
    """Another run writes to the same file."""


class Journal:
    """A line is with the operating system when `append` returns, and on the disk after `sync`.

    So a killed process loses nothing that was appended, a machine without power what came after the
    last `sync`. The file is locked against other runs while it is open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = _open_locked(path)
        self._num_appended = self._num_synced = 0
        sync_folder(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, line: dict[str, Any]) -> None:
        """Add one line. Raises `OSError` when the disk is full."""
        left = memoryview(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
        with _named(self.path):
            while left:
                left = left[os.write(self._handle, left) :]
        self._num_appended += 1

    def sync(self) -> None:
        """Wait until everything appended is on the disk; nothing to do when it is.

        May be called while another thread appends. Raises `OSError` when the disk fails.
        """
        num_appended = self._num_appended
        if num_appended > self._num_synced:
            with _named(self.path):
                os.fsync(self._handle)
            self._num_synced = num_appended

    def reopen(self) -> None:
        """Go on in the file that has taken this one's place."""
        old, self._handle = self._handle, _open_locked(self.path)
        os.close(old)

    def close(self) -> None:
        """Sync, and let other runs have the file; an empty one is taken away."""
        try:
            self.sync()
            if os.fstat(self._handle).st_size == 0:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._handle)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of a file that is open do not say which it is."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _open_locked(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking, another run may have put a new file in its place.
        if not os.path.samestat(os.fstat(handle), os.stat(path)):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError) as error:
        os.close(handle)
        raise BusyError(f"another run writes to {path}: wait for it or stop it") from error
    return handle


def in_input_order(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal as their rows stand in the input; 16 bytes of memory for each."""
    places, offsets = array("q"), array("q")
    with path.open("rb") as lines:
        offset = 0
        for line in lines:
            places.append(json.loads(line)["input"]["place"])
            offsets.append(offset)
            offset += len(line)
        for number in np.argsort(np.asarray(places), kind="stable"):
            lines.seek(offsets[number])
            yield json.loads(lines.readline())
