"""What is measured against each other: this engine's policies, and what people run today."""

from __future__ import annotations

from typing import Any

POLICIES: dict[str, dict[str, Any]] = {
    "dense": {"policy": "dense"},
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
