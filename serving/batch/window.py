"""Brings rows about the same image together, looking a bounded way ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vllm_csp.serving.batch.row import Rejected, Row

MAX_BYTES = 64 << 20
"""Most bytes of images within requests that wait at once."""


def grouped(
    rows: Iterable[Row | Rejected], look_ahead: int, max_bytes: int = MAX_BYTES
) -> Iterator[list[Row] | Rejected]:
    """Lists of rows about one image, in the order in which the images first come.

    At most `look_ahead` rows, and `max_bytes` beside one row, wait for others of their image.
    """
    waiting: dict[str, list[Row]] = {}
    num_rows = num_bytes = 0
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        waiting.setdefault(row.image_key, []).append(row)
        num_rows, num_bytes = num_rows + 1, num_bytes + row.weight
        while num_rows and (num_rows >= look_ahead or num_bytes > max_bytes):
            group = waiting.pop(next(iter(waiting)))
            num_rows -= len(group)
            num_bytes -= sum(one.weight for one in group)
            yield group
    yield from waiting.values()
