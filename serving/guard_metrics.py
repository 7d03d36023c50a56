"""Metrics of what is let in and whether the server works, beside those of `metrics.py`."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge

# Why a request is refused, or ended before it is answered.
REFUSALS = (
    *("body_too_large", "body_too_slow", "bodies_full", "images_full", "queue_full"),
    *("draining", "engine_dead", "not_finished"),
)


class GuardMetrics:
    """One set per API process."""

    @staticmethod
    @cache
    def instance() -> GuardMetrics:
        """The process's metrics; Prometheus knows each name once."""
        return GuardMetrics()

    def __init__(self) -> None:
        self.held_requests = Gauge(
            "vllm_csp:held_requests",
            "Answers in the making, each question and each of `n` counted.",
            multiprocess_mode="livesum",
        )
        self.refused = Counter(
            "vllm_csp:requests_refused", "Requests not let in, or ended by the server.", ["reason"]
        )
        self.ready = Gauge(
            "vllm_csp:ready",
            "1 if the server was ready when last looked at, else 0.",
            multiprocess_mode="livemin",
        )
        self.probes = Counter(
            "vllm_csp:probes", "Masks made to see whether the server works.", ["outcome"]
        )
        # All of them are there from the start, as zeros.
        for reason in REFUSALS:
            self.refused.labels(reason=reason)
        for outcome in ("mask", "error"):
            self.probes.labels(outcome=outcome)
