"""The base of all selectors: a validated name with parameters, and one method that chooses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vllm_csp.tokens.selectors.inputs import Need, SelectionError, SelectionInputs


class ScoreSpec(BaseModel):
    """Which attention a stage is scored by.

    row: "readout" is the row that predicts [SEG] and "last" the last one of the prompt, which are
        the same; "seg" a [SEG] right behind the prompt, as a forced answer has it; "mean" the mean
        of "readout" and "seg".
    softmax: over all keys of the request, or over the image keys only.
    rope: False scores queries and keys before the rotary embedding (FEATHER, arXiv 2412.13180).
    layers: how many layers before the stage are averaged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: Literal["readout", "last", "seg", "mean"] = "readout"
    softmax: Literal["all_keys", "image_keys"] = "all_keys"
    rope: bool = True
    layers: int = Field(default=1, ge=1)

    @property
    def needs_seg(self) -> bool:
        """Whether a [SEG] row must be run behind the prompt."""
        return self.row in ("seg", "mean")


class SelectorSpec(BaseModel, ABC):
    """A rule that keeps ``budget`` of N image tokens; frozen, comparable, JSON-serialisable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs: ClassVar[frozenset[Need]] = frozenset()

    name: str

    @property
    def depends_on_question(self) -> bool:
        """Whether two requests with the same image may keep different tokens.

        If so, their K/V from this stage on differ and must not be shared by prefix caching.
        """
        return False

    @property
    def attention_score(self) -> ScoreSpec | None:
        """The attention that must be given as ``readout_scores``, or None."""
        return None

    @property
    def subset_of_previous(self) -> bool:
        """Whether only tokens of the previous stage are candidates.

        True for attention scores: a token absent from the scored layer has no key there.
        """
        return self.attention_score is not None

    @property
    def merges_features(self) -> bool:
        """Whether kept tokens also take up the features of dropped ones (``merge``)."""
        return False

    @property
    def all_needs(self) -> frozenset[Need]:
        """What ``select`` and ``merge`` need together."""
        merging: frozenset[Need] = frozenset({"image_features", "cls_attention", "key_features"})
        return self.needs | merging if self.merges_features else self.needs

    def check(self, budget: int, grid: tuple[int, int]) -> None:
        """Raise SelectionError when ``budget`` is impossible on ``grid`` (rows, columns)."""

    def select(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """Original indices of the kept tokens: [B, budget] int64, unique, ascending.

        Raises:
            SelectionError: an input is missing, or the budget is impossible.
        """
        total = inputs.num_image_tokens
        if not 1 <= budget <= total:
            raise SelectionError(f"budget {budget} is outside 1..{total} image tokens")
        if budget == total:
            return torch.arange(total, device=inputs.device).repeat(inputs.batch_size, 1)
        self.check(budget, inputs.grid)
        return self.choose(inputs, budget)

    @abstractmethod
    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """``select`` for 1 <= budget < N."""

    def merge(self, inputs: SelectionInputs, selected: Tensor) -> Tensor:
        """New features [B, K, D] of the kept tokens ``selected`` [B, K], if ``merges_features``."""
        raise SelectionError(f"selector '{self.name}' does not merge features")
