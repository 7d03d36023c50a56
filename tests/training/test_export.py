"""What was trained is what is served: the exported checkpoint in the real engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tests.in_process import in_process
from vllm_csp.images import sam_input_size, sam_resize
from vllm_csp.masks import decode_mask
from vllm_csp.models.published import published_config
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.sam.postprocess import masks_from_logits
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
from vllm_csp.scenes.phrases import ANSWERS
from vllm_csp.serving.segmenter import Question
from vllm_csp.training.export import (
    folded_encoder,
    load_encoder,
    sam_weights,
    write_checkpoint,
)
from vllm_csp.training.packing import Packer
from vllm_csp.training.questions import Asked, Picture
from vllm_csp.training.shape import MiniShape
from vllm_csp.training.student import Student

SHAPE = MiniShape()
QUESTIONS = ("Where is the cat?", "Please segment the left eye.", "What is red in this image?")
"""Untrained networks answer them all alike, but not the same."""


@pytest.fixture(scope="module")
def sam(assets: Path) -> dict[str, torch.Tensor]:
    return sam_weights(assets / "mobile-sam/mobile_sam.safetensors")


@pytest.fixture(scope="module")
def student(sam: dict[str, torch.Tensor], tokenizer: LisaTokenizer) -> Student:
    torch.manual_seed(0)
    student = Student(SHAPE, tokenizer.vocab_size).eval()
    student.load_sam(sam)
    # As a trained network's: layers that do something, queries large enough to tell masks apart.
    for name, parameter in student.language_model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(student.text_hidden_fcs[2].weight, std=0.1)
    return student.half().float()


@pytest.fixture(scope="module")
def checkpoint(
    student: Student,
    sam: dict[str, torch.Tensor],
    vocabulary_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    size = write_checkpoint(folder, student, SHAPE, vocabulary_folder, folded_encoder(sam))
    assert size <= 24e6
    student.float()
    return folder


def test_the_engine_gives_the_masks_of_the_trained_networks(
    checkpoint: Path, student: Student, sam: dict[str, torch.Tensor], tokenizer: LisaTokenizer
) -> None:
    image = Image.fromarray(data.chelsea())
    expected = own_masks(student, sam, tokenizer, image)
    with in_process(
        str(checkpoint),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        kv_cache_memory_bytes=1 << 26,
    ) as segmenter:
        answers = segmenter.ask([Question(text, image, mode="force") for text in QUESTIONS])
    for answer, mask in zip(answers, expected, strict=True):
        served = decode_mask(answer.masks[0])
        assert (served & mask).sum() / max(1, (served | mask).sum()) > 0.98
    assert len({mask.tobytes() for mask in expected}) > 1


@torch.inference_mode()
def own_masks(
    student: Student, sam: dict[str, torch.Tensor], tokenizer: LisaTokenizer, image: Image.Image
) -> list[np.ndarray]:
    """The masks without an engine."""
    encoder = load_encoder(sam)
    pixels = torch.from_numpy(sam_resize(image))
    embedding = encoder(Sam(MOBILE_SAM).preprocess([pixels]))
    nothing = np.zeros((image.height, image.width), np.uint8)
    asked = tuple(Asked(text, ANSWERS[1], (nothing,)) for text in QUESTIONS)
    packer = Packer(tokenizer)
    batch = packer.pack([Picture(image, asked)])
    queries = student(batch, packer.before_image, packer.after_image).queries[batch.forced]
    logits = student.masks(embedding.expand(len(queries), -1, -1, -1), queries)
    size = (image.height, image.width)
    masks, _ = masks_from_logits(logits, sam_input_size(size), size, 1024)
    return list(masks.numpy())


def test_the_configuration_has_the_published_fields() -> None:
    config = published_config(SHAPE.text_config(1024), SHAPE.vision_hidden_size, -1)
    assert config["architectures"] == ["LISAForCausalLM"]
    assert config["num_hidden_layers"] == 12 and config["torch_dtype"] == "bfloat16"
