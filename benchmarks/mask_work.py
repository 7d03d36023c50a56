"""What mask decoding starts from: embeddings of photos, and queries about them."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.baselines import Baseline
from benchmarks.calls import FIRST_SCENE
from benchmarks.dtype_options import usual_dtypes
from benchmarks.shipped import shipped_encode
from vllm_csp.images import sam_input_size
from vllm_csp.sam.embedding_cache import ImageEmbedding
from vllm_csp.sam.sam import Sam
from vllm_csp.scenes import make_sample
from vllm_csp.standin import SAM


@torch.inference_mode()
def trained_work(
    checkpoint: str, images: int, per_image: int, size: tuple[int, int]
) -> dict[str, Tensor]:
    """Embeddings [images, C, g, g] and queries [images, per_image, C], by a trained model.

    Those of forced answers to questions about held-out scenes, cut to `size` (height, width).
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Baseline(checkpoint, usual_dtypes()[0], device)
    embeddings, queries = [], []
    height, width = size
    for number in range(images):
        sample = make_sample(FIRST_SCENE + number, "test", size=max(size))
        picture = sample.image.crop((0, 0, width, height))
        pixels = model.sam_pixels([picture])
        embeddings.append(shipped_encode(model.sam.image_encoder, pixels)[0])
        [rows] = model.image_rows([picture])
        texts = islice(cycle(one.text for one in sample.questions), per_image)
        inputs = [model.embedded(model.prompt(text), rows)[None] for text in texts]
        last = [model.llama.model(inputs_embeds=one)[0][0, -1] for one in inputs]
        queries.append(model.queries(torch.stack(last)))
    return {"embeddings": torch.stack(embeddings).cpu(), "queries": torch.stack(queries).cpu()}


def random_work(images: int, per_image: int) -> dict[str, Tensor]:
    """The same without meaning; masks of random weights are noise, whose run lengths are long."""
    torch.manual_seed(1)
    return {
        "embeddings": torch.randn(images, 256, 64, 64),
        "queries": torch.randn(images, per_image, 256),
    }


def load_sam(checkpoint: str, dtype: str, device: str) -> Sam:
    """Of a checkpoint, or with random weights."""
    if checkpoint:
        return Baseline(checkpoint, dtype, device).sam
    torch.manual_seed(0)
    return Sam(SAM).to(device, getattr(torch, dtype)).eval()


def load_work(
    file: Path, images: int, per_image: int, like: Tensor, size: tuple[int, int]
) -> tuple[list[ImageEmbedding], list[Tensor]]:
    """The first of a file's images and of each one's queries, in dtype and on the device of `like`.

    Embeddings lie as the cache of embeddings holds them.
    """
    work = torch.load(file, weights_only=True)
    embeddings = work["embeddings"][:images].to(like.device, like.dtype)
    embeddings = embeddings.contiguous(memory_format=torch.channels_last)
    queries = work["queries"][:images, :per_image].to(like.device, like.dtype)
    return [ImageEmbedding(one, sam_input_size(size), size) for one in embeddings], list(queries)
