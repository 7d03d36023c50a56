"""Reads what `/metrics` tells."""

from __future__ import annotations

from collections.abc import Iterable


def summed(text: str, names: Iterable[str]) -> dict[str, float]:
    """Each of these metrics, summed over its labels; 0 for one that is not there.

    text: Prometheus's exposition format.
    """
    found = dict.fromkeys(names, 0.0)
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in found:
            found[name] += float(line.rsplit(" ", 1)[1])
    return found
