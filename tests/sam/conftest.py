"""The oracle (recorded outputs of unmodified LISA on a tiny checkpoint) and SAMs to test with."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from vllm_csp.images import sam_resize, to_rgb
from vllm_csp.sam.encoder_kind import read_geometry
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.vit_geometry import VitGeometry

PREFIX = "model.visual_model."
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SMALL = VitGeometry(
    image_size=64,
    patch_size=8,
    embed_dim=32,
    depth=2,
    num_heads=2,
    out_channels=256,
    window_size=3,
    global_attention_indexes=(1,),
)


def oracle_folder() -> Path:
    """`VLLM_CSP_ORACLE`, or the folder beside the repository."""
    beside = Path(__file__).parents[3] / "shared" / "oracle"
    return Path(os.environ.get("VLLM_CSP_ORACLE", beside))


@dataclass(frozen=True)
class Recording:
    """One run of one case in one precision: `kind` is `generate` or `teacher_forced`."""

    case: dict[str, Any]
    kind: str
    precision: str
    arrays: dict[str, npt.NDArray[np.float32]]
    image: Image.Image

    @property
    def numbers(self) -> dict[str, Any]:
        """Masks and checksums."""
        return self.case[self.kind][self.precision]

    @property
    def original_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return (self.image.height, self.image.width)


class Oracle:
    """Reads the recordings; keeps what several tests compute alike."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases = json.loads((folder / "cases.json").read_text())["cases"]
        self.recording = cache(self._recording)
        self.sam = cache(self._sam)
        self.embedding = cache(self._embedding)

    def recordings(self, precision: str) -> Iterator[Recording]:
        """All runs in one precision."""
        for case in self.cases:
            for kind in ("generate", "teacher_forced"):
                if kind in case:
                    yield self.recording(case["id"], kind, precision)

    def weights(self) -> dict[str, Tensor]:
        """SAM's weights, fp32, named as `Sam` names them."""
        path = self.folder / "checkpoint" / "pytorch_model.bin"
        checkpoint = torch.load(path, weights_only=True, mmap=True)
        return {k[len(PREFIX) :]: v for k, v in checkpoint.items() if k.startswith(PREFIX)}

    def pixels(self, recording: Recording) -> Tensor:
        """The image resized for SAM, uint8 [h, w, 3]."""
        return torch.from_numpy(sam_resize(recording.image))

    def image_embedding(self, recording: Recording) -> Tensor:
        """SAM's embedding [1, 256, 64, 64] of a recording's image, computed once per image."""
        return self.embedding(recording.case["image"], recording.precision)

    def _recording(self, case_id: str, kind: str, precision: str) -> Recording:
        case = next(case for case in self.cases if case["id"] == case_id)
        start = f"{precision}__{'gen' if kind == 'generate' else 'tf'}__"
        with np.load(self.folder / case["npz"]) as stored:
            arrays = {k[len(start) :]: stored[k] for k in stored if k.startswith(start)}
        with Image.open(self.folder / case["image"]) as image:
            rgb = to_rgb(image)
        assert hashlib.sha256(rgb.tobytes()).hexdigest() == case["image_rgb_sha256"]
        return Recording(case, kind, precision, arrays, rgb)

    def _sam(self, precision: str) -> Sam:
        weights = self.weights()
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        sam = Sam(read_geometry(shapes)).to(DTYPES[precision]).eval()
        sam.load_weights(weights.items())
        sam.require_complete()
        return sam

    def _embedding(self, image: str, precision: str) -> Tensor:
        recording = next(r for r in self.recordings(precision) if r.case["image"] == image)
        sam = self.sam(precision)
        with torch.no_grad():
            return sam.encode(sam.preprocess([self.pixels(recording)]))


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """The oracle; the test is skipped where it is not at hand."""
    folder = oracle_folder()
    if not folder.is_dir():
        pytest.skip("no oracle: set VLLM_CSP_ORACLE to the folder of recorded LISA outputs")
    return Oracle(folder)


@pytest.fixture
def small_sam() -> Callable[[], Sam]:
    """Makes random SAMs of 64 pixels and 8 x 8 patches, the same each time."""

    def make() -> Sam:
        torch.manual_seed(0)
        sam = Sam(SMALL).eval()
        for weight in sam.parameters():
            weight.data.normal_(std=0.1)
        return sam

    return make


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    """Inference only."""
    with torch.no_grad():
        yield
