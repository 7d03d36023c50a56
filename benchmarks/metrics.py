"""Reads what `/metrics` tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str) -> Iterator[Sample]:
    """All values with their names and labels; text: Prometheus's exposition format."""
    for family in text_string_to_metric_families(text):
        yield from family.samples


def summed(text: str, names: Iterable[str]) -> dict[str, float]:
    """Each of these metrics, summed over its labels; 0 for one that is not there."""
    found = dict.fromkeys(names, 0.0)
    for one in samples(text):
        if one.name in found:
            found[one.name] += one.value
    return found
