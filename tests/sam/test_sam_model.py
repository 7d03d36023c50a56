"""Dtypes, devices, weights and imports, on a small random SAM."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vllm_csp.sam.sam import PIXEL_MEAN, PIXEL_STD, Sam
from vllm_csp.sam.vit_geometry import VIT_H

MakeSam = Callable[[], Sam]
MATRIX = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes
    ]


def test_padding_is_zero_after_normalising(small_sam: MakeSam) -> None:
    (image,) = images((40, 64))
    pixels = small_sam().preprocess([image])
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels[0, :, 40:].abs().max() == 0
    expected = (image[3, 5].float() - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
    assert torch.equal(pixels[0, :, 3, 5], expected)


def test_a_cast_module_still_normalises_in_fp32(small_sam: MakeSam) -> None:
    batch = images((64, 40))
    exact = small_sam().preprocess(batch)
    cast = small_sam().bfloat16().preprocess(batch)
    assert cast.dtype == torch.bfloat16
    assert torch.equal(cast, exact.bfloat16())


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(64, 65, 3, dtype=torch.uint8),
        torch.zeros(64, 64, 3),
        torch.zeros(3, 64, 64, dtype=torch.uint8),
        torch.zeros(64, 64, dtype=torch.uint8),
    ],
)
def test_pixels_that_do_not_fit_are_refused(small_sam: MakeSam, image: Tensor) -> None:
    with pytest.raises(ValueError, match="SAM pixels"):
        small_sam().preprocess([image])


def test_encoding_a_batch_equals_one_by_one(small_sam: MakeSam) -> None:
    sam = small_sam()
    pixels = sam.preprocess(images((64, 40), (30, 64), (64, 64)))
    alone = torch.cat([sam.encode(row[None]) for row in pixels])
    assert torch.allclose(sam.encode(pixels), alone, rtol=0, atol=1e-5)


def test_masks_are_four_times_the_grid(small_sam: MakeSam) -> None:
    logits = small_sam().decode(torch.randn(3, 256, 8, 8), torch.randn(3, 256))
    assert logits.shape == (3, 32, 32)


def test_no_query_gives_no_mask(small_sam: MakeSam) -> None:
    logits = small_sam().decode(torch.randn(0, 256, 8, 8), torch.randn(0, 256))
    assert logits.shape == (0, 32, 32)


def test_every_query_needs_an_image(small_sam: MakeSam) -> None:
    with pytest.raises(ValueError, match="1 image embeddings for 2 queries"):
        small_sam().decode(torch.randn(1, 256, 8, 8), torch.randn(2, 256))


def test_decoder_equals_the_per_image_loop_upstream_does(small_sam: MakeSam) -> None:
    sam = small_sam()
    embeddings, queries = torch.randn(3, 256, 8, 8), torch.randn(3, 256)
    logits = sam.decode(embeddings, queries)
    upstream = type(sam.mask_decoder).__mro__[1]
    no_mask = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    for row in range(3):
        masks, _ = upstream.forward(
            sam.mask_decoder,
            image_embeddings=embeddings[row][None],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=queries[row][None, None],
            dense_prompt_embeddings=no_mask.expand(1, -1, 8, 8),
            multimask_output=False,
        )
        assert torch.allclose(logits[row], masks[0, 0], rtol=1e-4, atol=1e-4)


def test_neck_of_a_half_precision_encoder_does_not_overflow(small_sam: MakeSam) -> None:
    sam = small_sam().half()
    # Features of some hundreds, whose squares leave the range of fp16.
    sam.image_encoder.neck[0].weight.data.mul_(300)
    pixels = sam.preprocess(images((64, 64)))
    tokens = sam.image_encoder.patch_embed(pixels) + sam.image_encoder.pos_embed
    for block in sam.image_encoder.blocks:
        tokens = block(tokens)
    upstream = sam.image_encoder.neck(tokens.permute(0, 3, 1, 2))
    embedding = sam.encode(pixels)
    reference = sam.float().encode(pixels.float())
    assert embedding.dtype == torch.float16
    assert (embedding - reference).abs().max() < 0.02 * reference.std()
    assert (upstream - reference).abs().max() > reference.std()


def test_positional_encoding_is_in_the_dtype_of_the_weights(small_sam: MakeSam) -> None:
    exact = small_sam().prompt_encoder.get_dense_pe()
    cast = small_sam().bfloat16().prompt_encoder.get_dense_pe()
    assert cast.dtype == torch.bfloat16
    assert not torch.equal(cast, exact.bfloat16())


def test_positional_encoding_is_computed_once_until_weights_change(small_sam: MakeSam) -> None:
    sam = small_sam()
    first = sam.prompt_encoder.get_dense_pe()
    assert sam.prompt_encoder.get_dense_pe() is first
    assert sam.bfloat16().prompt_encoder.get_dense_pe().dtype == torch.bfloat16
    before = sam.prompt_encoder.get_dense_pe()
    sam.load_weights([(MATRIX, torch.zeros(2, 128))])
    assert not torch.equal(sam.prompt_encoder.get_dense_pe(), before)


def test_loading_copies_parameters_and_the_gaussian_matrix(small_sam: MakeSam) -> None:
    weights = {name: torch.full_like(w, 0.5) for name, w in small_sam().state_dict().items()}
    sam = small_sam().bfloat16()
    assert sam.load_weights(weights.items()) == set(weights)
    sam.require_complete()
    assert MATRIX in weights
    assert all((weight == 0.5).all() for weight in sam.state_dict().values())
    assert not any(name.startswith("pixel_") for name in weights)


def test_weights_may_come_in_several_calls(small_sam: MakeSam) -> None:
    weights = list(small_sam().state_dict().items())
    sam = small_sam()
    sam.load_weights(weights[:5])
    with pytest.raises(ValueError, match="weights are missing"):
        sam.require_complete()
    sam.load_weights(weights[5:])
    sam.require_complete()


def test_a_missing_gaussian_matrix_is_named(small_sam: MakeSam) -> None:
    weights = small_sam().state_dict()
    del weights[MATRIX]
    sam = small_sam()
    sam.load_weights(weights.items())
    with pytest.raises(ValueError, match=f"1 SAM weights are missing, among them {MATRIX}"):
        sam.require_complete()


def test_unknown_and_misshapen_weights_are_named(small_sam: MakeSam) -> None:
    with pytest.raises(ValueError, match=r"unexpected SAM weight mask_decoder\.extra"):
        small_sam().load_weights([("mask_decoder.extra", torch.zeros(1))])
    with pytest.raises(ValueError, match=rf"{MATRIX} has shape \[2, 64\], expected \[2, 128\]"):
        small_sam().load_weights([(MATRIX, torch.zeros(2, 64))])


def test_vit_h_builds_on_meta_with_the_published_number_of_values() -> None:
    with torch.device("meta"):
        sam = Sam(VIT_H)
    weights = sam.state_dict()
    assert len(weights) == 594
    assert sum(weight.numel() for weight in weights.values()) == 641_090_864


def test_meta_module_must_be_materialised_before_loading(small_sam: MakeSam) -> None:
    weights = small_sam().state_dict()
    with torch.device("meta"):
        sam = small_sam()
    with pytest.raises(RuntimeError, match="to_empty"):
        sam.load_weights(weights.items())
    sam.to_empty(device="cpu")
    sam.load_weights(weights.items())
    batch = images((64, 40))
    assert torch.equal(sam.preprocess(batch), small_sam().preprocess(batch))


def test_modeling_imports_without_torchvision_and_leaves_the_package_entry_alone() -> None:
    script = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
sys.meta_path.insert(0, Broken())
from vllm_csp.sam import upstream
assert upstream.ImageEncoderViT.__module__ == "segment_anything.modeling.image_encoder"
assert "segment_anything" not in sys.modules
try:
    import segment_anything
except RuntimeError as error:
    assert "nms" in str(error)
else:
    raise AssertionError("the true error is hidden")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_queries_that_share_an_image_equal_those_that_bring_it(small_sam: MakeSam) -> None:
    sam = small_sam()
    embeddings, queries = torch.randn(3, 256, 8, 8), torch.randn(7, 256)
    owner = [2, 0, 0, 1, 1, 2, 2]
    alone = sam.decode(embeddings[owner], queries, rows_at_once=1)
    for rows_at_once in (2, 3, 64):
        shared = sam.decode(embeddings, queries, owner, rows_at_once)
        assert torch.allclose(shared, alone, rtol=1e-5, atol=1e-5)


def test_the_decoder_can_be_trained(small_sam: MakeSam) -> None:
    sam = small_sam()
    with torch.enable_grad():
        logits = sam.decode(torch.randn(2, 256, 8, 8), torch.randn(2, 256))
        logits.square().mean().backward()
    untouched = [name for name, one in sam.mask_decoder.named_parameters() if one.grad is None]
    # The other masks and the score, which LISA does not read; what softmax does not see.
    spare = ("output_hypernetworks_mlps", "iou_prediction_head")
    assert all(name.startswith(spare) or name.endswith("k_proj.bias") for name in untouched)
