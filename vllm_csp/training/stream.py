"""Training batches, each a function of its step: a resumed run sees what it would have seen."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vllm_csp.images import to_rgb
from vllm_csp.scenes import SceneSample, make_sample
from vllm_csp.training.embeddings import EmbeddingFile
from vllm_csp.training.packing import Packed, Packer
from vllm_csp.training.photos import Photo
from vllm_csp.training.questions import Picture, ask_classes, from_scene
from vllm_csp.training.settings import TrainingSettings

SCENE_SIZE = 448


@dataclass(frozen=True)
class Step:
    """Pictures without and with SAM embeddings bf16 [B, 256, 64, 64]."""

    fresh: Packed
    embedded: Packed | None = None
    embeddings: Tensor | None = None


class Stream(Dataset[Step]):
    """Batch number -> batch."""

    def __init__(
        self,
        settings: TrainingSettings,
        packer: Packer,
        photos: Sequence[Photo],
        file: EmbeddingFile,
    ) -> None:
        self.settings, self.packer, self.file = settings, packer, file
        self.photos = list(photos)
        self.of_source: dict[str, list[Photo]] = {}
        for photo in photos:
            self.of_source.setdefault(photo.source, []).append(photo)
        self.scenes = sorted(int(n[6:]) for n in file.places if n.startswith("train/"))

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Step:
        rng = random.Random(f"{self.settings.seed}:{step}")
        fresh = self.packer.pack(list(self._fresh(step, rng)))
        settings = self.settings
        if step < settings.decoder_from or step % settings.masks_every:
            return Step(fresh)
        pictures = [self._embedded(rng) for _ in range(settings.embedded)]
        embeddings = self.file.read([picture.embedding or "" for picture in pictures])
        return Step(fresh, self.packer.pack(pictures), embeddings)

    def _fresh(self, step: int, rng: random.Random) -> Iterator[Picture]:
        settings = self.settings
        for number in range(settings.fresh_scenes):
            # Behind the scenes with embeddings, and never the same one twice.
            seed = 1_000_000 + step * settings.fresh_scenes + number
            sample = self._scene(seed)
            yield self._asked(sample, rng, None)
        for _ in range(settings.fresh_photos):
            photo = rng.choice(self.of_source[rng.choice(sorted(self.of_source))])
            yield augmented(photo_picture(photo, settings.questions, rng, None), rng)

    def _scene(self, seed: int) -> SceneSample:
        return make_sample(
            seed,
            "train",
            size=SCENE_SIZE,
            # More than are asked, so that there is a choice of kinds.
            questions=2 * self.settings.questions,
        )

    def _asked(self, sample: SceneSample, rng: random.Random, embedding: str | None) -> Picture:
        settings = self.settings
        return from_scene(sample, settings.questions, settings.emphasis, rng, embedding)

    def _embedded(self, rng: random.Random) -> Picture:
        if rng.random() < self.settings.scene_share:
            seed = rng.choice(self.scenes)
            sample = self._scene(seed)
            return self._asked(sample, rng, f"train/{seed}")
        photo = rng.choice(self.of_source[rng.choice(sorted(self.of_source))])
        return photo_picture(photo, self.settings.questions, rng, photo.key)


def photo_picture(photo: Photo, count: int, rng: random.Random, embedding: str | None) -> Picture:
    """A photo with questions about classes it shows, and some that it does not."""
    masks = photo.read_masks()
    absent = [name for name in photo.classes if name not in masks]
    questions = ask_classes(masks, absent, count, rng)
    image = to_rgb(Image.open(photo.path))
    return Picture(image, questions, embedding, masks, photo.classes)


def augmented(picture: Picture, rng: random.Random) -> Picture:
    """A random part of a picture, at times mirrored."""
    width, height = picture.image.size
    side = int(min(width, height) * rng.uniform(0.6, 1.0))
    left, top = rng.randint(0, width - side), rng.randint(0, height - side)
    image = picture.image.crop((left, top, left + side, top + side))
    mirror = rng.random() < 0.5
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    questions = []
    for asked in picture.questions:
        masks = [mask[top : top + side, left : left + side] for mask in asked.masks]
        if any((mask == 1).mean() < 0.002 for mask in masks):
            continue  # Cut away.
        turned = tuple(mask[:, ::-1].copy() if mirror else mask for mask in masks)
        questions.append(replace(asked, masks=turned))
    labels = {
        name: mask[top : top + side, left : left + side][:, :: -1 if mirror else 1]
        for name, mask in picture.labels.items()
    }
    return Picture(image, tuple(questions), None, labels, picture.known)
