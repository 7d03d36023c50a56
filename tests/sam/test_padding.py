"""Layers that are not run on padding give what they give when they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.sam.mobile_sam import WEIGHTS, photo, published_weights
from tests.sam.test_tiny_vit import mobile_sam, small_encoder
from vllm_csp.cpu_dtypes import has_instructions
from vllm_csp.images import sam_resize
from vllm_csp.sam.mask_service import _encode
from vllm_csp.sam.padding import Convolution, LocalLayers, Windows
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM

MakeSam = Callable[[], Sam]
SIDE = 128
# Without instructions for it, it takes many times as long and nobody serves in it.
SERVES_BF16 = has_instructions(torch.bfloat16)
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no {WEIGHTS.name}")

convolutions = st.builds(
    Convolution, kernel=st.sampled_from([1, 3, 5]), stride=st.integers(1, 2), padding=st.just(1)
)
sights = st.lists(st.one_of(convolutions, st.builds(Windows, st.integers(1, 7))), max_size=5)


def padded(side: int, *extents: tuple[int, int]) -> Tensor:
    """Images of these extents in squares [B, 3, side, side]."""
    pixels = torch.zeros(len(extents), 3, side, side)
    for image, (rows, columns) in zip(pixels, extents, strict=True):
        image[:, :rows, :columns] = torch.randn(3, rows, columns)
    return pixels


def sees(step: Convolution | Windows, out: int) -> set[int]:
    """Rows that one row of the output sees."""
    if isinstance(step, Windows):
        first = out // step.side * step.side
        return set(range(first, first + step.side))
    first = out * step.stride - step.padding
    return set(range(first, first + step.kernel))


def sees_through(sight: list[Convolution | Windows], out: int) -> set[int]:
    rows = {out}
    for step in reversed(sight):
        rows = {row for one in rows for row in sees(step, one) if row >= 0}
    return rows


@settings(deadline=None)
@given(sights, st.integers(1, 40))
def test_what_is_reached_is_all_that_sees_the_rows(
    sight: list[Convolution | Windows], count: int
) -> None:
    reached, _ = LocalLayers(torch.nn.Identity(), sight).reached((count, 1))
    seen_by = [out for out in range(reached + 60) if sees_through(sight, out) & set(range(count))]
    assert all(out < reached for out in seen_by)


@settings(deadline=None)
@given(sights, st.integers(1, 40))
def test_what_is_needed_is_all_that_the_rows_see(
    sight: list[Convolution | Windows], count: int
) -> None:
    _, needed = LocalLayers(torch.nn.Identity(), sight).needed((1, count))
    for out in range(count):
        assert all(row < needed for row in sees_through(sight, out))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, SIDE), st.integers(1, SIDE))
def test_tiny_vit_gives_the_same(rows: int, columns: int) -> None:
    encoder, pixels = small_encoder(), padded(SIDE, (rows, columns))
    with torch.inference_mode():
        whole, cut = encoder(pixels), encoder(pixels, (rows, columns))
    assert torch.allclose(cut, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extent", [(64, 48), (40, 64), (1, 1), (23, 25), (64, 64)])
def test_a_vit_gives_the_same(small_sam: MakeSam, extent: tuple[int, int]) -> None:
    sam, pixels = small_sam(), padded(64, extent)
    with torch.inference_mode():
        whole, cut = sam.encode(pixels), sam.encode(pixels, extent)
    assert torch.allclose(cut, whole, rtol=0, atol=1e-5)


def test_a_batch_is_cut_to_the_largest() -> None:
    encoder, pixels = small_encoder(), padded(SIDE, (30, 60), (50, 20))
    with torch.inference_mode():
        assert torch.allclose(encoder(pixels, (50, 60)), encoder(pixels), rtol=0, atol=1e-5)


def test_the_first_layers_are_run_on_the_corner() -> None:
    encoder = small_encoder()
    sizes: list[tuple[int, int]] = []
    encoder.patch_embed.register_forward_pre_hook(
        lambda _, taken: sizes.append((taken[0].shape[2], taken[0].shape[3]))
    )
    pixels = padded(SIDE, (64, SIDE))
    with torch.inference_mode():
        encoder(pixels, (64, SIDE))
        encoder(pixels, (64, SIDE))
    # Padding alone, once; then what the photo reaches.
    [blank, first, second] = sizes
    assert blank == (SIDE, SIDE)
    assert first == second
    assert 64 < first[0] < 96
    assert first[1] == SIDE


def test_a_vits_first_layers_are_run_on_the_corner(small_sam: MakeSam) -> None:
    sam = small_sam()
    sizes: list[tuple[int, ...]] = []
    sam.image_encoder.get_submodule("patch_embed").register_forward_pre_hook(
        lambda _, taken: sizes.append(tuple(taken[0].shape[2:]))
    )
    with torch.inference_mode():
        sam.encode(padded(64, (23, 25)), (23, 25))
    # Patches of 8 pixels in windows of 3 patches, on a grid of 8.
    assert sizes == [(64, 64), (24, 48)]


def test_images_of_a_batch_are_cut_to_what_all_of_them_cover(small_sam: MakeSam) -> None:
    sam = small_sam()
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8) for size in [(20, 40), (30, 24)]]
    with torch.inference_mode():
        whole = sam.encode(sam.preprocess(images))
        assert torch.allclose(_encode(sam, images), whole, rtol=0, atol=1e-5)


def test_with_gradients_nothing_is_kept(small_sam: MakeSam) -> None:
    sam, pixels = small_sam().requires_grad_(), padded(64, (40, 64))
    with torch.enable_grad():
        for _ in range(2):
            sam.encode(pixels, (40, 64)).sum().backward()
    assert torch.equal(sam.encode(pixels, (40, 64)), sam.encode(pixels))


def test_images_of_another_size_have_padding_of_their_own() -> None:
    encoder = small_encoder()
    with torch.inference_mode():
        encoder(padded(SIDE, (40, SIDE)), (40, SIDE))
        larger = padded(2 * SIDE, (80, 2 * SIDE))
        assert torch.allclose(encoder(larger, (80, 2 * SIDE)), encoder(larger), rtol=0, atol=1e-5)


def test_a_vit_refuses_another_size(small_sam: MakeSam) -> None:
    with pytest.raises(ValueError, match="not of side 64"):
        small_sam().encode(torch.zeros(1, 3, 32, 32))


def test_padding_is_forgotten_with_the_weights(small_sam: MakeSam) -> None:
    sam, pixels = small_sam(), padded(64, (40, 64))
    with torch.inference_mode():
        sam.encode(pixels, (40, 64))
        sam.load_weights([(name, 2 * weight) for name, weight in sam.state_dict().items()])
        assert torch.allclose(sam.encode(pixels, (40, 64)), sam.encode(pixels), atol=1e-5)


def test_padding_is_made_anew_in_another_dtype(small_sam: MakeSam) -> None:
    sam, pixels = small_sam(), padded(64, (40, 64))
    with torch.inference_mode():
        sam.encode(pixels, (40, 64))
        sam, pixels = sam.double(), pixels.double()
        cut, whole = sam.encode(pixels, (40, 64)), sam.encode(pixels)
    assert cut.dtype == torch.float64
    assert torch.allclose(cut, whole, rtol=0, atol=1e-12)


@needs_weights
@pytest.mark.parametrize("dtype", [torch.float32, *[torch.bfloat16] * SERVES_BF16])
def test_of_a_photo_mobile_sam_makes_the_same(dtype: torch.dtype) -> None:
    sam = mobile_sam()
    if dtype != torch.float32:
        sam = Sam(MOBILE_SAM).eval().to(dtype)
        sam.load_weights(published_weights().items())
    image = torch.from_numpy(sam_resize(photo()))
    rows, columns, _ = image.shape
    assert rows < 0.8 * columns
    with torch.inference_mode():
        pixels = sam.preprocess([image])
        cut, whole = sam.encode(pixels, (rows, columns)).float(), sam.encode(pixels).float()
    # Another shape may take another kernel, which may round otherwise.
    assert (cut - whole).norm() < (1e-5 if dtype == torch.float32 else 0.01) * whole.norm()
