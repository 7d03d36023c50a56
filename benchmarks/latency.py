"""What the times of requests come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def median_and_p95(seconds: Sequence[float]) -> tuple[float, float]:
    """Of the seconds of requests, at least one; between two of them in proportion."""
    median, p95 = np.percentile(seconds, [50, 95])
    return float(median), float(p95)
