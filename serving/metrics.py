"""Prometheus metrics of this package, on vLLM's `/metrics` under the prefix `vllm_csp:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """One set per API process."""

    @staticmethod
    @cache
    def instance() -> Metrics:
        """The process's metrics; Prometheus knows each name once."""
        return Metrics()

    def __init__(self) -> None:
        self.masks = Counter("vllm_csp:masks", "Masks returned.")
        self.decode_seconds = Histogram(
            "vllm_csp:mask_decode_seconds", "Time of a mask decoding call.", buckets=SECONDS
        )
        self.decode_batch_size = Histogram(
            "vllm_csp:mask_decode_batch_size", "Answers per mask decoding call.", buckets=COUNTS
        )
        self.visual_tokens = Counter(
            "vllm_csp:visual_tokens", "Image tokens that a stage kept.", ["stage"]
        )
        self.kept_ratio = _gauge(
            "visual_tokens_kept_ratio", "Image-token layers over those of `dense`."
        )
        self.encode_seconds = Counter("vllm_csp:sam_encode_seconds", "Time in SAM's image encoder.")
        self.cache_queries = Counter("vllm_csp:sam_cache_queries", "Image embeddings looked up.")
        self.cache_hits = Counter("vllm_csp:sam_cache_hits", "Image embeddings found.")
        self.cache_host_hits = Counter(
            "vllm_csp:sam_cache_host_hits", "Of these, brought back from the host's memory."
        )
        self.shared_images = Counter(
            "vllm_csp:shared_images",
            "Images that a staged policy took, in its first stages, from a request beside it.",
        )
        self.held_streams = _gauge("held_streams", "Sequences whose queries are held.")
        self.held_embeddings = _gauge("held_embeddings", "Image embeddings on the device.")
        self.host_embeddings = _gauge("host_embeddings", "Image embeddings in the host's memory.")
        self.pinned_embeddings = _gauge(
            "pinned_embeddings", "Image embeddings that a running request needs."
        )
        self._held: dict[int, Mapping[str, float]] = {}

    def observe_call(
        self, engine: int, num_answers: int, seconds: float, counters: Mapping[str, float]
    ) -> None:
        """Note one call to an engine and the counters that came back with it."""
        if num_answers:
            self.decode_seconds.observe(seconds)
            self.decode_batch_size.observe(num_answers)
        self.cache_hits.inc(counters["new_hits"])
        self.cache_host_hits.inc(counters["new_host_hits"])
        self.cache_queries.inc(counters["new_hits"] + counters["new_misses"])
        self.encode_seconds.inc(counters["new_encode_seconds"])
        self.shared_images.inc(counters["new_shared_images"])
        self._held[engine] = counters
        for gauge, name in (
            (self.held_streams, "streams"),
            (self.held_embeddings, "embeddings"),
            (self.host_embeddings, "host_embeddings"),
            (self.pinned_embeddings, "pinned"),
        ):
            gauge.set(sum(held[name] for held in self._held.values()))

    def observe_image(self, kept_per_stage: Sequence[int], kept_ratio: float) -> None:
        """Note one image that went through the stages."""
        for stage, kept in enumerate(kept_per_stage):
            self.visual_tokens.labels(stage=str(stage)).inc(kept)
        self.kept_ratio.set(kept_ratio)


def _gauge(name: str, description: str) -> Gauge:
    """A figure of the engines, which several API processes report: the latest one holds."""
    return Gauge(f"vllm_csp:{name}", description, multiprocess_mode="mostrecent")
