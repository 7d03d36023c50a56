"""Masks turned into what the losses compare with."""

from __future__ import annotations

import numpy as np

from vllm_csp.training.questions import IGNORE
from vllm_csp.training.targets import inner_point, on_clip_grid, on_sam_frame


def half(height: int, width: int) -> np.ndarray:
    """A mask of the left half."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 1
    return mask


def test_the_frame_ignores_sams_padding() -> None:
    frame = on_sam_frame(half(240, 480))
    assert (frame[128:] == IGNORE).all()
    assert (frame[:128, :128] == 1).all() and (frame[:128, 128:] == 0).all()


def test_the_grid_covers_clips_central_square() -> None:
    shares = on_clip_grid(half(240, 480))
    assert np.allclose(shares[:, :8], 1) and np.allclose(shares[:, 8:], 0)


def test_unknown_pixels_are_no_target_on_the_grid() -> None:
    assert on_clip_grid(np.full((64, 64), IGNORE, np.uint8)).sum() == 0


def test_the_inner_point_lies_deep_inside() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[40:80, 100:140] = 1
    point = inner_point(on_sam_frame(mask) == 1)
    assert point is not None
    assert np.allclose(point, (0.6, 0.3), atol=0.02)


def test_a_mask_of_several_pieces_has_no_point() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[:50, :50] = mask[150:, 150:] = 1
    assert inner_point(on_sam_frame(mask) == 1) is None
