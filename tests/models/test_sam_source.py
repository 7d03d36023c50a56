"""Where SAM's image encoder comes from: the checkpoint, or a file that the settings name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data
from torch import Tensor, nn
from vllm.engine.arg_utils import EngineArgs

from tests.in_process import in_process
from vllm_csp.config import CspConfig
from vllm_csp.images import image_key, sam_resize
from vllm_csp.masks import decode_mask
from vllm_csp.models.sam_source import CHECKPOINT_PREFIX
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.tiny_vit import TinyVitEncoder
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
from vllm_csp.serving.segmenter import Question
from vllm_csp.standin import SAM, write_standin

ENCODER = "image_encoder."
PHOTOS = [Image.fromarray(data.chelsea()), Image.fromarray(data.coffee())]


@pytest.fixture(scope="module")
def encoder() -> TinyVitEncoder:
    """Random weights, with BatchNorms that do something."""
    torch.manual_seed(3)
    encoder = TinyVitEncoder().eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return encoder


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin(tmp_path_factory.mktemp("encoders") / "standin")


def named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: weight for name, weight in module.state_dict().items()}


def beside_the_checkpoint(standin: Path, encoder: TinyVitEncoder) -> tuple[Path, dict[str, str]]:
    """A file as MobileSAM publishes it: a pickle, with a classifier and parts that SAM has too."""
    file = standin.parent / "mobile_sam.pt"
    others = {
        f"{ENCODER}head.weight": torch.zeros(10, 320),
        f"{ENCODER}norm_head.bias": torch.zeros(320),
        "mask_decoder.iou_token.weight": torch.zeros(1, 256),
    }
    torch.save({**named(ENCODER, encoder), **others}, file)
    return standin, {"sam_encoder": "mobile_sam", "sam_encoder_weights": str(file)}


def inside_the_checkpoint(standin: Path, encoder: TinyVitEncoder) -> tuple[Path, dict[str, str]]:
    """A checkpoint that was trained with a TinyViT, its BatchNorms folded."""
    folder = standin.parent / "tiny"
    shutil.copytree(standin, folder)
    own = f"{CHECKPOINT_PREFIX}{ENCODER}"
    weights = load_file(standin / "model.safetensors")
    weights = {name: weight for name, weight in weights.items() if not name.startswith(own)}
    save_file({**weights, **named(own, encoder.folded())}, folder / "model.safetensors")
    return folder, {}


@pytest.mark.parametrize("place", [beside_the_checkpoint, inside_the_checkpoint])
def test_an_engine_with_tiny_vit_caches_its_embeddings_and_answers_with_masks(
    place: Callable[[Path, TinyVitEncoder], tuple[Path, dict[str, str]]],
    standin: Path,
    encoder: TinyVitEncoder,
) -> None:
    checkpoint, settings = place(standin, encoder)
    with in_process(
        str(checkpoint),
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=4,
        kv_cache_memory_bytes=1 << 26,
        additional_config={"csp": settings},
    ) as engine:
        answers = engine.ask([Question("Where is it?", photo, mode="force") for photo in PHOTOS])
        [held] = engine.llm.apply_model(held_embeddings)
    for photo, answer, embedding in zip(PHOTOS, answers, held, strict=True):
        [mask] = answer.masks
        assert decode_mask(mask).shape == (photo.height, photo.width)
        expected = plain_embedding(encoder, photo)
        given = torch.from_numpy(embedding)
        assert (given - expected).norm() < 0.03 * expected.norm()


def held_embeddings(model: Any) -> list[Any]:
    """In the worker: what its cache holds."""
    cache = model.masks.embeddings
    return [cache.peek(image_key(photo)).embedding.float().numpy() for photo in PHOTOS]


def plain_embedding(encoder: TinyVitEncoder, photo: Image.Image) -> Tensor:
    """What the encoder makes of a photo by itself, fp32 [256, 64, 64]."""
    with torch.device("meta"):
        sam = Sam(SAM)
    pixels = sam.to_empty(device="cpu").preprocess([torch.from_numpy(sam_resize(photo))])
    with torch.no_grad():
        return encoder(pixels)[0]


def configured(checkpoint: Path, **settings: str) -> None:
    """Read the flags as `vllm serve` does, before any process starts."""
    EngineArgs(
        model=str(checkpoint),
        enforce_eager=True,
        max_model_len=1024,
        additional_config={"csp": {"sam_encoder": "mobile_sam", **settings}},
    ).create_engine_config()


def test_a_folder_with_one_file_of_weights_is_taken(
    standin: Path, encoder: TinyVitEncoder, tmp_path: Path
) -> None:
    save_file(named(ENCODER, encoder), tmp_path / "any name.safetensors")
    configured(standin, sam_encoder_weights=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ""),
        (b"<html>Not found</html>", "not a file of named tensors"),
        ({}, "lack image_encoder.layers.0"),
        ({"image_encoder.blocks.0.norm1.weight": torch.zeros(3)}, "of kind mobile_sam"),
        ({"weights": Path("runs code")}, "not a file of named tensors"),
        ([torch.zeros(3)], "not a file of named tensors"),
    ],
)
@pytest.mark.parametrize("name", ["mobile_sam.pt", "mobile_sam.safetensors"])
def test_a_file_that_is_no_mobile_sam_is_refused_by_name(
    content: Any, message: str, name: str, standin: Path, tmp_path: Path
) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
        message = message if name.endswith(".pt") else "not a file of named tensors"
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        configured(standin, sam_encoder_weights=str(file))


def test_an_empty_folder_and_a_full_one_are_refused(
    standin: Path, encoder: TinyVitEncoder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="has none"):
        configured(standin, sam_encoder_weights=str(tmp_path))
    for name in ("a.pt", "b.pt"):
        torch.save(named(ENCODER, encoder), tmp_path / name)
    with pytest.raises(ValueError, match="no/such is neither a file nor a folder"):
        configured(standin, sam_encoder_weights="no/such")
    with pytest.raises(ValueError, match=r"has \['a.pt', 'b.pt'\]"):
        configured(standin, sam_encoder_weights=str(tmp_path))


def test_an_encoder_of_another_size_is_refused(standin: Path, tmp_path: Path) -> None:
    other = TinyVitEncoder(replace(MOBILE_SAM, out_channels=128))
    save_file(named(ENCODER, other), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"128 x 64 x 64.*made for 256 x 64 x 64"):
        configured(standin, sam_encoder_weights=str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sam_encoder": "mobile_sam"}, "needs sam_encoder_weights"),
        ({"sam_encoder_weights": "mobile_sam.pt"}, "needs sam_encoder,"),
        ({"sam_encoder": "tiny"}, "'checkpoint' or 'mobile_sam'"),
    ],
)
def test_half_a_setting_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CspConfig.from_additional_config({"csp": settings})
