"""What is measured against each other: this engine's policies, and what people run today."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from vllm_csp.config import CspConfig
from vllm_csp.images import SAM_IMAGE_SIZE

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


def kind_and_size(system: str) -> tuple[str, int]:
    """Of `dense`, or of `dense@512`: the kind of system, and pixels of SAM's images.

    Raises: ArgumentTypeError for a name that is none, and for a size that no server takes.
    """
    kind, at, size = system.partition("@")
    if kind not in SYSTEMS or (at and not size.isdecimal()):
        known = ", ".join(SYSTEMS)
        raise ArgumentTypeError(f"{system} is none of {known}, nor one of them with @512")
    section = {"sam_image_size": int(size or SAM_IMAGE_SIZE)}
    try:
        return kind, CspConfig.from_section(section, system).sam_image_size
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def system_name(text: str) -> str:
    """An argument that names a system; raises as `kind_and_size` does."""
    kind_and_size(text)
    return text
