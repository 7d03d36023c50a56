"""Rows on their way to a worker and lines on their way back, as Ray's blocks carry them."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from vllm_csp.serving.batch.row import Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Reply:
    """Lines for the journal, and what it took."""

    lines: list[dict[str, Any]]
    images_read: int = 0
    retries: int = 0
    server_restarts: int = 0


def packs_of(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Rows in lots; those about one image, which come together, go to one or two workers."""
    while pack := list(islice(rows, size)):
        yield pack


def rows_block(rows: list[Row]) -> pa.Table:
    """A block of one cell. Files keep their meaning in another working folder."""
    whole = [
        row if row.file is None else replace(row, file=os.path.abspath(row.file)) for row in rows
    ]
    return _block(pickle.dumps(whole))


def block_rows(block: pa.Table) -> list[Row]:
    """What `rows_block` made a block of."""
    rows: list[Row] = pickle.loads(_cell(block))
    return rows


def reply_block(reply: Reply) -> pa.Table:
    """A block of one cell."""
    return _block(json.dumps(vars(reply)).encode("ascii"))


def block_reply(block: pa.Table) -> Reply:
    """What `reply_block` made a block of."""
    return Reply(**json.loads(_cell(block)))


def _block(cell: bytes) -> pa.Table:
    import pyarrow as pa

    return pa.table({"pack": pa.array([cell], pa.large_binary())})


def _cell(block: pa.Table) -> bytes:
    [cell] = block["pack"].to_pylist()
    assert isinstance(cell, bytes)
    return cell
