"""What came of one question, and of all questions under one policy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vllm_csp.datasets.item import Item
from vllm_csp.evaluation.asker import Reply
from vllm_csp.evaluation.metrics import Overlap, Scores
from vllm_csp.evaluation.sam_options import SamOptions
from vllm_csp.masks import decode_mask


@dataclass(frozen=True)
class Outcome:
    """One question's answer against what is right.

    overlaps: of each expected mask with the answer's mask of the same number; an absent one counts
    as empty. answered: masks in the answer. wanted: the expected text, if it is known.
    """

    key: str
    image: str
    kind: str
    overlaps: tuple[Overlap, ...]
    answered: int
    text: str
    wanted: str | None = None

    @classmethod
    def of(cls, item: Item, image: str, reply: Reply) -> Outcome:
        """Score a reply. Raises: ValueError naming the question when sizes differ."""
        masks = [decode_mask(dict(one)) for one in reply.masks]
        overlaps = []
        for number, target in enumerate(item.rasters()):
            mask = masks[number] if number < len(masks) else np.zeros(target.shape, bool)
            try:
                overlaps.append(Overlap.of(mask, target))
            except ValueError as error:
                raise ValueError(f"question {item.key} about {image}: {error}") from error
        return cls(item.key, image, item.kind, tuple(overlaps), len(masks), reply.text, item.answer)

    @property
    def right_number(self) -> bool:
        """Whether the answer has as many [SEG]s as there are targets."""
        return self.answered == len(self.overlaps)

    @property
    def right_text(self) -> bool | None:
        """Whether the answer is the expected one but for spacing; None if none is known."""
        return None if self.wanted is None else same_text(self.text, self.wanted)


@dataclass
class PolicyResult:
    """All outcomes under one policy.

    skipped: questions that the mode cannot ask. seconds: spent asking, without start-up, reading
    and scoring; None when other policies were asked in between and shared the encoders' work.
    costs: means over the questions, by name. image_scale, sam: as in `PolicyRun`.
    forced: the answers were not the model's.
    """

    name: str
    policy: str
    outcomes: list[Outcome] = field(default_factory=list)
    skipped: int = 0
    seconds: float | None = 0.0
    costs: dict[str, float] = field(default_factory=dict)
    image_scale: float = 1.0
    sam: SamOptions = field(default_factory=SamOptions)
    forced: bool = False

    @property
    def scores(self) -> Scores:
        """gIoU and cIoU, in total and by kind."""
        scores = Scores()
        for one in self.outcomes:
            scores.add(one.kind, one.overlaps)
        return scores

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PolicyResult:
        """What `to_json` gave."""
        outcomes = [
            Outcome(**{**one, "overlaps": tuple(Overlap(**pair) for pair in one["overlaps"])})
            for one in content["outcomes"]
        ]
        sam = SamOptions(**content["sam"])
        return cls(**{**content, "outcomes": outcomes, "sam": sam})


def mean_costs(costs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means of the figures of a comparison over questions; empty without questions."""
    if not costs:
        return {}
    means = {
        "mean_visual_tokens": float(np.mean([c["mean_visual_tokens_per_layer"] for c in costs])),
        "flops_ratio": float(np.mean([c["flops_ratio"] for c in costs])),
        "kv_blocks": float(np.mean([sum(c["kv_blocks"]) for c in costs])),
        "kv_groups": float(len(costs[0]["kv_blocks"])),
    }
    if "kv_ratio" in costs[0]:  # A server does not tell its block size.
        means["kv_ratio"] = float(np.mean([c["kv_ratio"] for c in costs]))
    return means


def same_text(one: str, other: str) -> bool:
    """Whether two answers say the same; LISA sets [SEG] and what follows it off by spaces."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))
