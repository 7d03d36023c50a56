"""Where an engine's steps made the host wait for the GPU, as vLLM's own check sees it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKED = {"VLLM_GPU_SYNC_CHECK": "warn"}
"""The environment of a process whose engine says when it waits; after its warm-up, on CUDA."""
# Of torch's warning and of vLLM's, which finds copies that torch does not.
MARKS = ("called a synchronizing CUDA operation", "Implicit GPU<->CPU sync")
ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def counted_waits() -> Iterator[Counter[str]]:
    """Fills with places, file and line, and how often each waited; of an engine in this process."""
    found: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield found
    for one in said:
        if any(mark in str(one.message) for mark in MARKS):
            file = Path(one.filename)
            name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else Path(*file.parts[-3:])
            found[f"{name}:{one.lineno}"] += 1


def told(waits: Counter[str], most: int = 3) -> str:
    """The places that waited most often, for a table."""
    return "; ".join(f"{place} x {count}" for place, count in waits.most_common(most))
