"""MobileSAM's image encoder, with its published weights where they are at hand."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.sam.mobile_sam import FOLDER, WEIGHTS, part, photo, point_logits, published_weights
from vllm_csp.images import sam_resize
from vllm_csp.sam.encoder_kind import read_geometry
from vllm_csp.sam.postprocess import masks_from_logits
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.tiny_vit import TinyVitEncoder
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM, TinyVitGeometry

ENCODER = "image_encoder."
SMALL = TinyVitGeometry(
    dims=(16, 32, 64, 96),
    depths=(1, 1, 2, 1),
    heads=(1, 2, 3),
    windows=(3, 5, 4),
    image_size=128,
)
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no {WEIGHTS.name}")


@cache
def mobile_sam() -> Sam:
    """All of MobileSAM, fp32."""
    weights = published_weights()
    sam = Sam(read_geometry({name: tuple(weight.shape) for name, weight in weights.items()}))
    sam.load_weights(weights.items())
    sam.require_complete()
    return sam.eval()


@cache
def truck() -> Tensor:
    """A photo as the encoder takes it, [1, 3, 1024, 1024]."""
    return mobile_sam().preprocess([torch.from_numpy(sam_resize(photo()))])


@cache
def truck_embedding() -> Tensor:
    """[1, 256, 64, 64] of fp32."""
    return mobile_sam().encode(truck())


def small_encoder() -> TinyVitEncoder:
    """Random weights, and BatchNorms that do something."""
    torch.manual_seed(0)
    encoder = TinyVitEncoder(SMALL).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return encoder


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {ENCODER + name: tuple(w.shape) for name, w in module.state_dict().items()}


@needs_weights
def test_a_point_on_the_truck_gives_the_recorded_mask() -> None:
    image = photo()
    scale = 1024 / max(image.size)
    logits, scores = point_logits(truck_embedding(), (500 * scale, 375 * scale))
    height, width = sam_resize(image).shape[:2]
    masks, _ = masks_from_logits(
        logits[scores.argmax()][None], (height, width), (image.height, image.width), 1024
    )
    with Image.open(FOLDER / "truck_0_mask.png") as stored:
        recorded = np.asarray(stored.convert("L")) > 127
    mask = masks[0].numpy()
    assert (mask & recorded).sum() > 0.999 * (mask | recorded).sum()


@needs_weights
def test_published_tensors_have_exactly_the_names_of_the_module() -> None:
    weights = part(published_weights(), ENCODER)
    encoder = TinyVitEncoder()
    encoder.load_state_dict(weights)
    assert read_geometry(shapes(encoder)) == MOBILE_SAM


@needs_weights
def test_bf16_keeps_the_embedding() -> None:
    sam = Sam(MOBILE_SAM).eval().bfloat16()
    sam.load_weights(published_weights().items())
    rough, exact = sam.encode(truck().bfloat16()).float(), truck_embedding()
    assert (rough - exact).norm() < 0.03 * exact.norm()


@needs_weights
def test_a_batch_equals_one_by_one() -> None:
    dog = mobile_sam().preprocess([torch.from_numpy(sam_resize(photo("dog.jpg")))])
    both = mobile_sam().encode(torch.cat((dog, truck())))
    assert torch.allclose(both[1:], truck_embedding(), rtol=0, atol=1e-4)


def test_running_as_one_convolution_equals_convolution_and_batch_norm() -> None:
    encoder = small_encoder()
    pixels = torch.randn(2, 3, 128, 128)
    apart = small_encoder()
    for module in apart.modules():
        # Training mode does not fold; its BatchNorms are kept on the stored statistics.
        module.training = not isinstance(module, nn.BatchNorm2d)
    expected = apart(pixels)
    assert torch.allclose(encoder(pixels), expected, rtol=1e-4, atol=1e-4)


def test_folded_weights_give_the_same_embedding() -> None:
    encoder = small_encoder()
    folded = encoder.folded()
    assert not any(".bn." in name for name in folded.state_dict())
    pixels = torch.randn(1, 3, 128, 128)
    assert torch.allclose(encoder(pixels), folded(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("folded", [False, True])
def test_geometry_is_read_off_the_shapes(folded: bool) -> None:
    geometry = replace(SMALL, image_size=1024, folded=folded)
    assert read_geometry(shapes(TinyVitEncoder(geometry))) == geometry


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("layers.1.blocks.0.attn.attention_biases", (4, 50), "attention_biases has shape"),
        ("layers.1.blocks.0.attn.attention_biases", (5, 49), "attention_biases has shape"),
        ("layers.2.blocks.0.attn.qkv.weight", None, "lack image_encoder.layers.2.blocks.0.attn"),
        ("patch_embed.seq.2.c.weight", None, "lack image_encoder.patch_embed.seq.2.c.weight"),
        ("layers.4.blocks.0.mlp.fc1.weight", (1, 1), "has 5 stages"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    name: str, shape: tuple[int, ...] | None, message: str
) -> None:
    given = shapes(TinyVitEncoder(replace(SMALL, heads=(4, 4, 4), windows=(7, 14, 7))))
    if shape is None:
        del given[ENCODER + name]
    else:
        given[ENCODER + name] = shape
    with pytest.raises(ValueError, match=message):
        read_geometry(given)


def test_a_sam_without_an_image_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="lack an image encoder"):
        read_geometry({"mask_decoder.iou_token.weight": (1, 256)})


def test_counts_of_training_steps_may_be_missing() -> None:
    sam = Sam(SMALL)
    weights = {k: v for k, v in sam.state_dict().items() if "num_batches_tracked" not in k}
    assert len(weights) < len(sam.state_dict())
    fresh = Sam(SMALL)
    fresh.load_weights(weights.items())
    fresh.require_complete()


def test_half_precision_neck_does_not_overflow() -> None:
    encoder = small_encoder()
    encoder.neck[0].weight.data.mul_(3000)
    pixels = torch.randn(1, 3, 128, 128)
    exact = encoder(pixels)
    rough = encoder.half()(pixels.half())
    assert rough.dtype == torch.float16
    assert (rough - exact).abs().max() < 0.05 * exact.std()
