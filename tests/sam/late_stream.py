"""Streams on a CPU: what one of them is given happens as late as it may.

Operators run at once, for the shapes of what they make, but what they made is spoilt until someone
waits for an event behind them. Who does not wait reads what is no number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tests.runner_v2.recorded_graph import RecordedGraph


class LateEvent:
    """In place of `torch.cuda.Event`: behind all that its stream was given before."""

    def __init__(self, work: list[LateWork]) -> None:
        self._work = list(work)

    def wait(self) -> None:
        """Now it has happened."""
        for one in self._work:
            one.happen()


class LateWork(RecordedGraph):
    """What was launched in one entry of a stream."""

    def spoil(self) -> None:
        """As if nothing had run yet."""
        for tensor in self.made():
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))

    def happen(self) -> None:
        """Run, once."""
        if not self.replays:
            with torch.inference_mode():
                self.replay()


class LateStream:
    """In place of `torch.cuda.Stream`; waiting for another one is noted."""

    def __init__(self) -> None:
        self.work: list[LateWork] = []
        self.waited_for: list[object] = []

    def wait_stream(self, other: object) -> None:
        """Nothing but a note: the current stream is never late."""
        self.waited_for.append(other)

    def record_event(self) -> LateEvent:
        """An event behind what it was given so far."""
        return LateEvent(self.work)


class LateStreams:
    """In place of `torch.cuda`."""

    current = "the current stream"

    def __init__(self) -> None:
        self.made: list[LateStream] = []
        self.entered: list[LateStream] = []

    def Stream(self) -> LateStream:
        """A new one."""
        self.made.append(LateStream())
        return self.made[-1]

    def current_stream(self) -> str:
        """The one that is never late."""
        return self.current

    @contextmanager
    def stream(self, stream: LateStream) -> Iterator[None]:
        """What runs within goes to `stream`."""
        work = LateWork()
        self.entered = [*self.entered, stream]
        with work:
            yield
        self.entered = self.entered[:-1]
        work.spoil()
        stream.work.append(work)
