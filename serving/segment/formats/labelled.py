"""Masks with the questions that they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from vllm_csp.serving.segment.response import Mask

LabelledMask: TypeAlias = "tuple[str, Mask]"


def label_numbers(masks: list[LabelledMask], first: int) -> dict[str, int]:
    """Numbers the labels in order of appearance, from `first`."""
    return {label: first + i for i, label in enumerate(dict.fromkeys(label for label, _ in masks))}
