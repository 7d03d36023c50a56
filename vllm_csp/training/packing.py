"""Several questions about a picture in one sequence, each seeing the picture and itself.

Image tokens come before the question, so in a causal model the rows up to `<im_end>` are the same
for all questions: they are computed once.

    prefix:  <s> system USER: <im_start> 256 image rows <im_end>
    segment: question ASSISTANT: answer </s>
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
from vllm_csp.training.shape import GRID
from vllm_csp.training.targets import Floats, on_clip_grid, target_of

NO_LABEL = -100


@dataclass(frozen=True)
class Packed:
    """B pictures as tensors; L = prefix + longest run of segments, R read-out rows in all.

    clip_pixels uint8 [B, 224, 224, 3]; segments int [B, L - prefix] ids; labels int, same shape,
    the id that a row predicts; owner int [B, L - prefix], which question a row is of (-1: padding);
    positions int [B, L - prefix].
    Read-outs: picture int [R], row int [R] among the segments' rows, forced bool [R], whether it is
    the last prompt row; targets grid fp32 [R, 16, 16], frame uint8 [R, 256, 256], point fp32 [R, 2]
    (nan: none).
    Patches: words fp32 [B, W, 16, 16], the share of a patch where a word holds; known bool [B, W].
    Mentions: int [M, 3], picture, row and word where a question has a word that `words` tells of.
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
    words: Tensor
    known: Tensor
    mentions: Tensor


@dataclass(frozen=True)
class _Segment:
    ids: list[int]
    labels: list[int]
    prompt_length: int
    seg_rows: list[int]


@dataclass
class _Sequence:
    """The segments of a picture, one after the other.

    places: per question its last prompt row and the rows that predict `[SEG]`.
    """

    ids: list[int]
    labels: list[int]
    owner: list[int]
    positions: list[int]
    places: list[tuple[int, list[int]]]


class Packer:
    """Packs pictures with one tokenizer."""

    def __init__(self, tokenizer: LisaTokenizer, words: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.words = {word: place for place, word in enumerate(words)}
        self.pieces = [tokenizer.encode(word, add_special_tokens=False) for word in words]
        self.word_of_piece = {
            ids[0]: place for place, ids in enumerate(self.pieces) if len(ids) == 1
        }
        prompt = self._prompt("x")
        place = prompt.index(tokenizer.image_token_id)
        self.before_image = prompt[:place]
        self.after_image = prompt[place + 1 : place + 2]

    def pack(self, pictures: Sequence[Picture]) -> Packed:
        """Pack a batch."""
        rows = [self._sequence(picture.questions) for picture in pictures]
        length = max(len(row.ids) for row in rows)
        readouts = [
            (number, row, forced, asked, index)
            for number, (picture, sequence) in enumerate(zip(pictures, rows, strict=True))
            for row, forced, asked, index in _readouts(picture.questions, sequence.places)
        ]
        masks = [asked.masks[index] for *_, asked, index in readouts]
        targets = {id(mask): target_of(mask) for mask in masks}
        targets_of = [targets[id(mask)] for mask in masks]
        crops = [clip_crop(picture.image.convert("RGB")) for picture in pictures]
        return Packed(
            clip_pixels=torch.from_numpy(np.stack(crops)),
            segments=_padded([row.ids for row in rows], length, 0),
            labels=_padded([row.labels for row in rows], length, NO_LABEL),
            owner=_padded([row.owner for row in rows], length, -1),
            positions=_padded([row.positions for row in rows], length, 0),
            picture=torch.tensor([entry[0] for entry in readouts], dtype=torch.long),
            row=torch.tensor([entry[1] for entry in readouts], dtype=torch.long),
            grid=_stacked([target.grid for target in targets_of], (16, 16)),
            frame=_stacked([target.frame for target in targets_of], (256, 256)),
            point=_stacked([target.point for target in targets_of], (2,)),
            forced=torch.tensor([entry[2] for entry in readouts], dtype=torch.bool),
            words=torch.from_numpy(np.stack([self._words(picture) for picture in pictures])),
            known=torch.tensor([[w in picture.known for w in self.words] for picture in pictures]),
            mentions=self._mentions(pictures, rows),
        )

    def _mentions(self, pictures: Sequence[Picture], rows: Sequence[_Sequence]) -> Tensor:
        found = [
            (number, row, word)
            for number, (picture, sequence) in enumerate(zip(pictures, rows, strict=True))
            for row, piece in enumerate(sequence.ids)
            if (word := self.word_of_piece.get(piece)) is not None
            and list(self.words)[word] in picture.labels
        ]
        return torch.tensor(found, dtype=torch.long).view(-1, 3)

    def _words(self, picture: Picture) -> Floats:
        shares = np.zeros((len(self.words), GRID, GRID), np.float32)
        for word, mask in picture.labels.items():
            if word in self.words:
                shares[self.words[word]] = on_clip_grid(mask)
        return shares

    def _sequence(self, questions: Sequence[Asked]) -> _Sequence:
        sequence = _Sequence([], [], [], [], [])
        for number, asked in enumerate(questions):
            segment = self._segment(asked)
            start = len(sequence.ids)
            seg_rows = [start + row for row in segment.seg_rows]
            sequence.places.append((start + segment.prompt_length - 1, seg_rows))
            sequence.ids += segment.ids
            sequence.labels += segment.labels
            sequence.owner += [number] * len(segment.ids)
            sequence.positions += range(len(segment.ids))
        return sequence

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
        return _Segment(
            ids, labels, len(question), [r for r, one in enumerate(labels) if one == seg]
        )

    def _prompt(self, text: str) -> list[int]:
        return self.tokenizer.encode_prompt(build_prompt([Turn("user", text, has_image=True)]))


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
