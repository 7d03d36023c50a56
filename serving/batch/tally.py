"""What a run has done so far, in numbers."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vllm_csp.serving.batch.outcome import masks_of, succeeded


@dataclass
class Tally:
    """Counts of rows; total: in the whole input, once it has been counted; started: the asking."""

    total: int | None = None
    earlier: int = 0
    succeeded: int = 0
    masks: int = 0
    without_mask: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    def count(self, line: dict[str, Any]) -> None:
        """Add a line of the output."""
        if not succeeded(line):
            self.failures[line["error"]["code"]] += 1
            return
        masks = masks_of(line["response"]["body"])
        self.succeeded += 1
        self.masks += len(masks)
        self.without_mask += not masks

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return self.failures.total()

    @property
    def done(self) -> int:
        """Rows with a line in the output."""
        return self.earlier + self.succeeded + self.failed

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return (self.succeeded + self.failed) / max(self.seconds, 1e-9)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Estimate, once there is something to go by."""
        if self.total is None or self.succeeded + self.failed == 0:
            return None
        return max(0, self.total - self.done) / self.rate

    def summary(self) -> dict[str, Any]:
        """All of it, for people and programs."""
        return {
            "rows": self.total,
            "answered_earlier": self.earlier,
            "answered": self.succeeded,
            "failed": self.failed,
            "failures": dict(self.failures.most_common()),
            "not_asked": None if self.total is None else max(0, self.total - self.done),
            "masks": self.masks,
            "answers_without_mask": self.without_mask,
            "seconds": round(self.seconds, 1),
            "rows_per_second": round(self.rate, 2),
        }
