"""Brings the journal of an earlier run, however that ended, into a state to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_csp.durable import whole_file
from vllm_csp.serving.batch.backlog import signed
from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.outcome import PREFIX, is_line, succeeded

STARTS = (b'{"id":"batch_req_', b'{"id":null,"custom_id":')


class NotAJournalError(ValueError):
    """The file was not written by a batch run, so it is left alone."""


@dataclass
class Recovered:
    """What a journal held: answers that stay, failures to be tried again, and damaged lines."""

    answers: int = 0
    failures: int = 0
    damaged: int = 0


def recover(path: Path, answered: DiskIndex) -> Recovered:
    """Keep the answers of a journal and put their ids into `answered`; the rest is taken out.

    The file is replaced as a whole, or not touched when it holds answers only.
    Raises `NotAJournalError` when a file's first line is not one of a journal.
    """
    found = Recovered()
    for line in _lines(path):
        _sort(line, answered, found)
    if found.failures or found.damaged:
        _rewrite(path)
    return found


def _sort(line: dict[str, Any] | None, answered: DiskIndex, found: Recovered) -> None:
    if line is None:
        found.damaged += 1
    elif not _is_kept(line):
        found.failures += 1
    elif answered.add(line["custom_id"], signed(line["id"].removeprefix(PREFIX))) is None:
        found.answers += 1
    else:
        raise NotAJournalError(
            f"{line['custom_id']!r} was answered twice, which no batch run writes; was the file "
            "edited? Choose another output"
        )


def _rewrite(path: Path) -> None:
    with whole_file(path) as partial, path.open("rb") as old, partial.open("wb") as new:
        for raw in old:
            line = _parse(raw)
            if line is not None and _is_kept(line):
                new.write(raw)


def _is_kept(line: dict[str, Any]) -> bool:
    return succeeded(line) and isinstance(line["id"], str) and isinstance(line["custom_id"], str)


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines):
            line = _parse(raw)
            if line is None and number == 0 and not _is_torn(raw):
                raise NotAJournalError(
                    f"{path} is no output of `vllm-csp batch`: choose another output"
                )
            yield line


def _is_torn(raw: bytes) -> bool:
    """Whether this may be the beginning of a journal's first line."""
    # A loss of power may leave zeros where the rest would have been.
    written = raw.rstrip(b"\0")
    begins = any(start.startswith(written[: len(start)]) for start in STARTS)
    return bool(written) and begins and not raw.endswith(b"\n")


def _parse(raw: bytes) -> dict[str, Any] | None:
    """A line; none when it is damaged, as the last one is after a crash amid writing."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if is_line(line) else None
