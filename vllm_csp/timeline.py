"""When a worker encoded, prefilled and decoded masks: what becomes spans in the API process.

Off, and then free, unless vLLM was started with `--otlp-traces-endpoint`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch

MOST_IMAGES = 1024
"""Images whose encoding is remembered."""


class Span(TypedDict):
    """Times are of `time.time_ns`."""

    name: str
    start: int
    end: int
    attributes: dict[str, int]


@dataclass
class Interval:
    """Work between two moments, which on a GPU are known only when it has come so far."""

    name: str
    began: Moment
    ended: Moment
    attributes: dict[str, int] = field(default_factory=dict)

    def span(self) -> Span:
        """As it is sent; waits for the GPU if it has not done the work yet."""
        start, end = self.began.time_ns(), self.ended.time_ns()
        # A stream that was given nothing has ended before.
        end = max(start, end)
        return Span(name=self.name, start=start, end=end, attributes=self.attributes)


class Moment:
    """Now: on a CPU the time, on a GPU when a stream gets here; the current one by default."""

    def __init__(self, origin: tuple[int, torch.cuda.Event] | None, stream: Any = None) -> None:
        self._origin = origin
        self._time_ns = time.time_ns()
        self._event: torch.cuda.Event | None = None
        if origin is not None:
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record(stream)

    def time_ns(self) -> int:
        """Nanoseconds since the epoch."""
        if self._event is None or self._origin is None:
            return self._time_ns
        self._event.synchronize()
        base, event = self._origin
        return base + int(event.elapsed_time(self._event) * 1e6)


class Timeline:
    """Intervals of one worker.

    step: those of the last forward pass, which all of its requests share.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.step: list[Interval] = []
        self._images: OrderedDict[str, list[Interval]] = OrderedDict()
        self._origin: tuple[int, torch.cuda.Event] | None = None

    def of_image(self, key: str) -> list[Interval]:
        """How an image was last encoded."""
        return self._images.get(key, [])

    @contextmanager
    def encoding(self, name: str, keys: Sequence[str], stream: Any = None) -> Iterator[None]:
        """Around encoding some images, which ends on `stream` if it has one of its own."""
        if not self.enabled:
            yield
            return
        began = self._now()
        yield
        interval = Interval(name, began, self._now(stream), {"vllm_csp.images": len(keys)})
        for key in keys:
            known = [one for one in self._images.pop(key, []) if one.name != name]
            self._images[key] = [*known, interval]
        while len(self._images) > MOST_IMAGES:
            self._images.popitem(last=False)

    @contextmanager
    def forward(self, num_rows: int) -> Iterator[None]:
        """Around a forward pass; forgets the one before."""
        if not self.enabled:
            yield
            return
        self.step = []
        with self.part("vllm_csp.prefill", rows=num_rows):
            yield

    @contextmanager
    def part(self, name: str, **attributes: int) -> Iterator[None]:
        """Around a part of a forward pass."""
        with self.measured(name, self.step, **attributes):
            yield

    @contextmanager
    def measured(self, name: str, found: list[Interval], **attributes: int) -> Iterator[None]:
        """Around anything else; the interval is added to `found`."""
        if not self.enabled:
            yield
            return
        began = self._now()
        yield
        named = {f"vllm_csp.{key}": value for key, value in attributes.items()}
        found.append(Interval(name, began, self._now(), named))

    def _now(self, stream: Any = None) -> Moment:
        if self._origin is None and torch.cuda.is_available():
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            event.synchronize()
            self._origin = (time.time_ns(), event)
        return Moment(self._origin, stream)
