"""Positions of a ViT at another size of image than its weights were made for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.sam.conftest import SMALL
from vllm_csp.sam.resized_positions import POSITIONS, fitted
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.upstream import ImageEncoderViT, import_modeling
from vllm_csp.sam.vit import VitEncoder

RELATIVE = "image_encoder.blocks.1.attn.rel_pos_h"


def at(side: int, sam: Sam) -> Sam:
    """The same weights for images of another side."""
    other = Sam(replace(SMALL, image_size=side)).eval()
    other.load_weights(sam.state_dict().items())
    other.require_complete()
    return other


def encoder_of(sam: Sam) -> VitEncoder:
    assert isinstance(sam.image_encoder, VitEncoder)
    return sam.image_encoder


@pytest.mark.parametrize("side", [3, 4, 5, 8, 12])
def test_relative_positions_are_interpolated_as_upstream_does(side: int) -> None:
    table = torch.randn(2 * 8 - 1, 16)
    get_rel_pos = import_modeling().image_encoder.get_rel_pos
    place = torch.arange(side)
    ours = fitted(RELATIVE, table, (2 * side - 1, 16))[place[:, None] - place + side - 1]
    torch.testing.assert_close(ours, get_rel_pos(side, side, table))


@pytest.mark.parametrize("side", [32, 48, 96])
def test_an_encoder_of_another_size_is_upstreams(side: int, small_sam: Callable[[], Sam]) -> None:
    """Upstream interpolates relative positions itself; it has no rule for absolute ones."""
    trained = small_sam()
    ours = encoder_of(at(side, trained))
    upstream = encoder_of(at(side, trained))
    for name, table in encoder_of(trained).named_parameters():
        if "rel_pos" in name:
            upstream.get_submodule(name.rpartition(".")[0]).register_parameter(
                name.rpartition(".")[2], torch.nn.Parameter(table.data)
            )
    pixels = torch.randn(2, 3, side, side)
    found, expected = ours(pixels), ImageEncoderViT.forward(upstream, pixels)
    assert found.shape == (2, 256, side // 8, side // 8)
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_absolute_positions_keep_their_place() -> None:
    """A ramp over the picture is the same ramp in fewer cells, the rim apart."""
    centres = (torch.arange(64) + 0.5) / 64
    ramp = centres[None, :, None, None].expand(1, 64, 64, 3)
    found = fitted(POSITIONS, ramp, (1, 32, 32, 3))
    expected = ((torch.arange(32) + 0.5) / 32)[None, :, None, None].expand(1, 32, 32, 3)
    torch.testing.assert_close(found[:, 1:-1], expected[:, 1:-1])


@pytest.mark.parametrize(
    ("name", "weight"), [(POSITIONS, torch.randn(1, 8, 8, 32)), (RELATIVE, torch.randn(15, 16))]
)
def test_what_fits_is_left_as_it_is(name: str, weight: Tensor) -> None:
    assert fitted(name, weight, weight.shape) is weight
    assert fitted("image_encoder.neck.0.weight", weight, (1, 4, 4, 32)) is weight


def test_half_precision_stays() -> None:
    assert fitted(POSITIONS, torch.randn(1, 8, 8, 32).half(), (1, 4, 4, 32)).dtype == torch.half


def test_positions_of_another_width_are_refused(small_sam: Callable[[], Sam]) -> None:
    with pytest.raises(ValueError, match=r"image_encoder\.pos_embed has shape"):
        small_sam().load_weights([(POSITIONS, torch.zeros(1, 4, 4, 16))])
