"""Which rows of the input are still to be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.row import Rejected, Row


class InputChangedError(ValueError):
    """A run is resumed with another input or other options."""


class Backlog:
    """Leaves out what an earlier run answered, and ids that come twice.

    answered: ids with the fingerprints of their requests. After the rows have been read,
    `num_answered` says how many of them had been answered.
    """

    def __init__(self, answered: DiskIndex) -> None:
        self.num_answered = 0
        self._answered = answered
        self._places = DiskIndex()

    def rows(self, source: Iterable[Row | Rejected]) -> Iterator[Row | Rejected]:
        """What is left of a source.

        Raises `InputChangedError` for an id that was answered for another request.
        """
        for row in source:
            name = row.custom_id
            first = None if name is None else self._places.add(name, row.place)
            if first is not None:
                message = (
                    f"custom_id {name!r} was used before, at row {first}; this row "
                    f"({row.place}) is not asked: ids must differ"
                )
                yield Rejected(row.place, "duplicate_custom_id", message)
            elif not (isinstance(row, Row) and self._is_answered(row)):
                yield row

    def _is_answered(self, row: Row) -> bool:
        request = self._answered.get(row.custom_id)
        if request is None:
            return False
        if request != signed(row.fingerprint()):
            raise InputChangedError(
                f"custom_id {row.custom_id!r} asks something else than in the run to be resumed: "
                "resume with the same input and options, or choose another output"
            )
        self.num_answered += 1
        return True


def signed(fingerprint: str) -> int:
    """A row's fingerprint as the 64-bit number that a `DiskIndex` holds."""
    return int.from_bytes(bytes.fromhex(fingerprint), "big", signed=True)
