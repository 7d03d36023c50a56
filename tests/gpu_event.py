"""In place of `torch.cuda.Event`: the events of a stream come one millisecond after the other."""

from __future__ import annotations

from typing import Any, ClassVar


class Event:
    """The next moment of a stream, once it is recorded."""

    streams: ClassVar[dict[object, int]] = {}
    over: ClassVar[float] = float("inf")
    """Until when, in milliseconds, all streams have run."""

    def __init__(self, enable_timing: bool) -> None:
        self.ms = 0

    def record(self, stream: Any = None) -> None:
        """The stream's next moment."""
        self.streams[stream] = self.streams.get(stream, 0) + 1
        self.ms = self.streams[stream]

    def query(self) -> bool:
        """Whether it has happened."""
        return self.ms <= self.over

    def synchronize(self) -> None:
        """It is always over in the end."""

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds."""
        return later.ms - self.ms
