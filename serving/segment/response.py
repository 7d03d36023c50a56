"""What `POST /v1/segment` returns; the client reads answers with the same classes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from vllm_csp.masks import coco_rle, decode_mask
from vllm_csp.serving.segment.convertible import Convertible


class Mask(BaseModel):
    """One mask, in the pixels of the original image, upright."""

    size: tuple[int, int] = Field(description="Height and width of the image.")
    counts: str | None = Field(
        None, description="COCO run-length encoding, as `pycocotools` takes it with `size`."
    )
    png: str | None = Field(
        None, description="With `mask_format` `png`: data URL of a black-and-white PNG."
    )
    bbox: tuple[int, int, int, int] = Field(description="x, y, width, height of its box.")
    area: int = Field(description="Pixels in the mask.")
    score: float = Field(
        description="Mean foreground probability inside the mask, 0 to 1; 0 for an empty one."
    )
    seg_index: int = Field(description="Which `[SEG]` of the answer it belongs to, from 0.")

    def to_numpy(self) -> npt.NDArray[np.bool_]:
        """The mask, bool [height, width]."""
        return decode_mask(self.model_dump())

    def rle(self) -> dict[str, Any]:
        """COCO's `{"size", "counts"}`."""
        return coco_rle(self.model_dump())


class SegmentError(BaseModel):
    """Why one question has no answer."""

    message: str = Field(description="What is wrong, in words.")
    type: str = Field(description="Kind of error, as in OpenAI's API.")
    param: str | None = Field(None, description="The field at fault.")
    code: int = Field(description="HTTP status that the question alone would have had.")


class SegmentResult(BaseModel, Convertible):
    """The answer to one question."""

    question: str = Field(description="The question, as asked.")
    answer: str | None = Field(
        None, description="Text with its `[SEG]`s; absent if the question failed."
    )
    finish_reason: str | None = Field(
        None, description="`stop`, or `length` if the answer was cut at `max_tokens`."
    )
    masks: list[Mask] = Field(
        default_factory=list, description="One per `[SEG]` of the answer, in order."
    )
    error: SegmentError | None = Field(None, description="Why this question failed, if it did.")
    segmentation: dict[str, Any] | None = Field(
        None, description="What its image tokens cost; with `stats` or `show_tokens` only."
    )

    def labelled_masks(self) -> list[tuple[str, Mask]]:
        """Each mask with the question."""
        return [(self.question, mask) for mask in self.masks]


class ImageSize(BaseModel):
    """Size of the decoded image, upright."""

    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")


class SegmentUsage(BaseModel):
    """Tokens of all questions that were answered."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class SegmentResponse(BaseModel, Convertible):
    """All answers about one image."""

    id: str = Field(description="`seg-` and the X-Request-Id of the call, or a random one.")
    object: Literal["segmentation"] = "segmentation"
    created: int = Field(description="Unix time, seconds.")
    model: str = Field(description="The model that answered.")
    image: ImageSize
    results: list[SegmentResult] = Field(description="In the order of the questions.")
    usage: SegmentUsage

    def labelled_masks(self) -> list[tuple[str, Mask]]:
        """Each mask with its question, in order."""
        return [row for result in self.results for row in result.labelled_masks()]

    def image_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.height, self.image.width
