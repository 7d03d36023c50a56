"""What is measured against each other: this engine's policies, and what people run today."""

from __future__ import annotations

from typing import Any

from benchmarks.sized_name import kind_and_size

IN_INT8 = "dense-int8"
ONE_STREAM = "dense-one-stream"
ONLY_IF_NAMED = (IN_INT8, ONE_STREAM)
POLICIES: dict[str, dict[str, Any]] = {
    "dense": {"policy": "dense"},
    IN_INT8: {"policy": "dense", "sam_quantization": "int8"},
    ONE_STREAM: {"policy": "dense", "sam_own_stream": False},
    "csp-65": {"policy": "csp", "preset": "65"},
    "csp-65-unshared": {"policy": "csp", "preset": "65", "share_images": False},
    "csp-70": {"policy": "csp", "preset": "70"},
    "fastv": {"policy": "fastv"},
    "feather": {"policy": "feather"},
    "prumerge+": {"policy": "prumerge+"},
    "resprune": {"policy": "resprune"},
    "random": {"policy": "random"},
}
BASELINES = ("reference", "huggingface")
SMALLER = "smaller-image"
SMALLER_TOKENS = 81
SYSTEMS = (*BASELINES, *POLICIES, SMALLER)
CHECKED = 4
"""Photos whose masks are compared."""
CHECKED_SCENES = 48
"""Scenes, if these are asked about: enough to tell an accuracy."""


def system_and_size(name: str) -> tuple[str, int]:
    """Of `dense`, or of `dense@512`; see `kind_and_size`."""
    return kind_and_size(name, SYSTEMS)


def system_name(text: str) -> str:
    """An argument that names a system; raises as `kind_and_size` does."""
    system_and_size(text)
    return text
