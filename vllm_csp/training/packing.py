"""Several questions about a picture in one sequence, each seeing the picture and itself.

Image tokens come before the question, so in a causal model the rows up to `<im_end>` are the same
for all questions: they are computed once.

    prefix: <s> system USER: <im_start> 256 image rows <im_end>   segment: question ASSISTANT: answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vllm_csp.images import clip_crop
from vllm_csp.models.conversation import Turn, build_prompt
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.training.questions import Asked, Picture
from vllm_csp.training.targets import inner_point, on_clip_grid, on_sam_frame

NO_LABEL = -100


@dataclass(frozen=True)
class Packed:
    """B pictures as tensors; L = prefix + longest run of segments, R read-out rows in all.

    clip_pixels uint8 [B, 224, 224, 3]; segments int [B, L - prefix] ids; labels int, same shape,
    the id that a row predicts; owner int [B, L - prefix], which question a row is of (-1: padding);
    positions int [B, L - prefix]. Read-outs: picture int [R], row int [R] among the segments' rows;
    grid fp32 [R, 16, 16]; frame uint8 [R, 256, 256]; point fp32 [R, 2] (nan: none); forced bool [R],
    whether it is the last prompt row.
    """

    clip_pixels: Tensor
    segments: Tensor
    labels: Tensor
    owner: Tensor
    positions: Tensor
    picture: Tensor
    row: Tensor
    grid: Tensor
    frame: Tensor
    point: Tensor
    forced: Tensor
    embeddings: tuple[str | None, ...]


@dataclass(frozen=True)
class _Segment:
    ids: list[int]
    labels: list[int]
    prompt_length: int
    seg_rows: list[int]


class Packer:
    """Packs pictures with one tokenizer."""

    def __init__(self, tokenizer: LisaTokenizer) -> None:
        self.tokenizer = tokenizer
        prompt = self._prompt("x")
        place = prompt.index(tokenizer.image_token_id)
        self.before_image = prompt[:place]
        self.after_image = prompt[place + 1 : place + 2]

    def pack(self, pictures: Sequence[Picture]) -> Packed:
        """Pack a batch."""
        rows = [self._sequence(picture.questions) for picture in pictures]
        length = max(len(ids) for ids, *_ in rows)
        fields = [_padded([row[n] for row in rows], length, pad) for n, pad in _PADDING]
        readouts = [
            (number, row, forced, asked, index)
            for number, (picture, sequence) in enumerate(zip(pictures, rows, strict=True))
            for row, forced, asked, index in _readouts(picture.questions, sequence[4])
        ]
        masks = [asked.masks[index] for *_, asked, index in readouts]
        points = [inner_point(mask) for mask in masks]
        nowhere = np.full(2, np.nan, np.float32)
        crops = [clip_crop(picture.image.convert("RGB")) for picture in pictures]
        return Packed(
            torch.from_numpy(np.stack(crops)),
            *fields,
            picture=torch.tensor([entry[0] for entry in readouts], dtype=torch.long),
            row=torch.tensor([entry[1] for entry in readouts], dtype=torch.long),
            grid=_stacked([on_clip_grid(mask) for mask in masks], (16, 16)),
            frame=_stacked([on_sam_frame(mask) for mask in masks], (256, 256)),
            point=_stacked([nowhere if one is None else one for one in points], (2,)),
            forced=torch.tensor([entry[2] for entry in readouts], dtype=torch.bool),
            embeddings=tuple(picture.embedding for picture in pictures),
        )

    def _sequence(
        self, questions: Sequence[Asked]
    ) -> tuple[list[int], list[int], list[int], list[int], list[tuple[int, list[int]]]]:
        """Ids, labels, owners and positions of a run of segments, and where each is read out."""
        ids: list[int] = []
        labels: list[int] = []
        owners: list[int] = []
        positions: list[int] = []
        places = []
        for number, asked in enumerate(questions):
            segment = self._segment(asked)
            start = len(ids)
            places.append((start + segment.prompt_length - 1, [start + r for r in segment.seg_rows]))
            ids += segment.ids
            labels += segment.labels
            owners += [number] * len(segment.ids)
            positions += range(len(segment.ids))
        return ids, labels, owners, positions, places

    def _segment(self, asked: Asked) -> _Segment:
        prompt = self._prompt(asked.text)
        question = prompt[prompt.index(self.tokenizer.image_token_id) + 2 :]
        answer = [
            *self.tokenizer.encode(asked.answer, add_special_tokens=False),
            self.tokenizer.eos_token_id,
        ]
        ids = question + answer
        labels = [NO_LABEL] * (len(question) - 1) + answer + [NO_LABEL]
        seg = self.tokenizer.seg_token_id
        return _Segment(ids, labels, len(question), [r for r, one in enumerate(labels) if one == seg])

    def _prompt(self, text: str) -> list[int]:
        return self.tokenizer.encode_prompt(build_prompt([Turn("user", text, has_image=True)]))


_PADDING = ((0, 0), (1, NO_LABEL), (2, -1), (3, 0))


def _readouts(
    questions: Sequence[Asked], places: list[tuple[int, list[int]]]
) -> list[tuple[int, bool, Asked, int]]:
    """(row, forced, question, index of its mask) of all rows that masks are read from.

    The row that predicts `[SEG]` in the answer, and, for LISA's evaluation that forces the answer,
    the last prompt row.
    """
    found = []
    for asked, (last, seg_rows) in zip(questions, places, strict=True):
        found += [(row, False, asked, index) for index, row in enumerate(seg_rows)]
        if len(asked.masks) == 1:
            found.append((last, True, asked, 0))
    return found


def _padded(rows: list[list[int]], length: int, pad: int) -> Tensor:
    return torch.tensor([row + [pad] * (length - len(row)) for row in rows])


def _stacked(arrays: list[np.ndarray], shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)) if arrays else torch.zeros((0, *shape))
