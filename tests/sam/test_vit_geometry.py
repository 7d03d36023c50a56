import pytest

from tests.models.published import read_json
from vllm_csp.sam.vit_geometry import VIT_H, VitGeometry

PREFIX = "model.visual_model."


def vit_shapes(
    depth: int = 4, head_dim: int = 32, global_blocks: tuple[int, ...] = (1, 3)
) -> dict[str, tuple[int, ...]]:
    encoder = "image_encoder."
    shapes: dict[str, tuple[int, ...]] = {
        f"{encoder}pos_embed": (1, 64, 64, 64),
        f"{encoder}patch_embed.proj.weight": (64, 3, 16, 16),
        f"{encoder}neck.0.weight": (256, 64, 1, 1),
        f"{encoder}blocks.0.mlp.lin1.weight": (256, 64),
    }
    for block in range(depth):
        rows = 127 if block in global_blocks else 27
        shapes[f"{encoder}blocks.{block}.attn.rel_pos_h"] = (rows, head_dim)
    return shapes


def test_reads_every_field_from_shapes() -> None:
    assert VitGeometry.from_shapes(vit_shapes()) == VitGeometry(
        image_size=1024,
        patch_size=16,
        embed_dim=64,
        depth=4,
        num_heads=2,
        out_channels=256,
        window_size=14,
        global_attention_indexes=(1, 3),
        mlp_ratio=4.0,
    )


def test_the_grid_is_that_of_the_embeddings() -> None:
    assert VIT_H.grid_size == 64


def test_ignores_tensors_of_other_modules() -> None:
    extra = {"mask_decoder.iou_token.weight": (1, 256)}
    assert VitGeometry.from_shapes(vit_shapes() | extra).depth == 4


def test_encoder_without_windows_has_window_size_zero() -> None:
    geometry = VitGeometry.from_shapes(vit_shapes(depth=2, global_blocks=(0, 1)))
    assert (geometry.window_size, geometry.global_attention_indexes) == (0, (0, 1))


@pytest.mark.parametrize("name", sorted(vit_shapes()))
def test_missing_tensor_is_named(name: str) -> None:
    shapes = vit_shapes()
    del shapes[name]
    # Without the last block's tensor the checkpoint is just one block shorter.
    if "blocks.3" in name:
        assert VitGeometry.from_shapes(shapes).depth == 3
    else:
        with pytest.raises(ValueError, match=r"lack image_encoder\.") as error:
            VitGeometry.from_shapes(shapes)
        assert str(error.value).split()[-1] in name


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("image_encoder.pos_embed", (1, 64, 32, 64)),
        ("image_encoder.pos_embed", (64, 64, 64)),
        ("image_encoder.patch_embed.proj.weight", (64, 3, 16, 8)),
        ("image_encoder.patch_embed.proj.weight", (32, 3, 16, 16)),
        ("image_encoder.blocks.0.attn.rel_pos_h", (27, 48)),
        ("image_encoder.blocks.0.attn.rel_pos_h", (27, 0)),
        ("image_encoder.blocks.2.attn.rel_pos_h", (27, 16)),
        ("image_encoder.blocks.2.attn.rel_pos_h", (26, 32)),
        ("image_encoder.blocks.2.attn.rel_pos_h", (129, 32)),
        ("image_encoder.blocks.2.attn.rel_pos_h", (13, 32)),
    ],
)
def test_odd_shape_is_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as error:
        VitGeometry.from_shapes(vit_shapes() | {name: shape})
    assert name in str(error.value)


@pytest.mark.parametrize("manifest", ["manifest_7b.json", "manifest_13b.json"])
def test_published_lisa_is_vit_h(manifest: str) -> None:
    keys = read_json(manifest)["keys"]
    shapes = {k[len(PREFIX) :]: tuple(v[1:]) for k, v in keys.items() if k.startswith(PREFIX)}
    assert VitGeometry.from_shapes(shapes) == VIT_H
