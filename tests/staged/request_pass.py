"""One request through the stages of a plan, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.staged import selection
from tests.staged.plans import Plan, Prompt, Stage, Trace
from tests.staged.selection import TOKENS

if TYPE_CHECKING:
    from tests.staged.reference import Model

SEG_TOKEN = 32003


@dataclass(frozen=True)
class Heads:
    """Queries and keys of a layer, [heads, T, width], before and after the rotary embedding."""

    query: Tensor
    key: Tensor
    turned_query: Tensor
    turned_key: Tensor


class RequestPass:
    """One request through all stages."""

    def __init__(
        self,
        model: Model,
        prompt: Prompt,
        plan: Plan,
        ids: list[int],
        kept: Sequence[list[int]] | None,
    ) -> None:
        self.model, self.prompt, self.plan = model, prompt, plan
        self.chooses = prompt.image is not None and kept is None
        self.length = len(ids)
        self.stream = model.embed(ids)
        if prompt.image is not None:
            assert prompt.image_start is not None
            self.seen = model.see(prompt.image)
            self.stream[prompt.image_start : prompt.image_start + TOKENS] = self.seen.rows
        self.embeds = self.stream.clone()
        self.trace = Trace()
        scores: dict[int, float] = {}
        for index, stage in enumerate(plan.stages):
            if prompt.image is not None:
                self._reactivate(index)
                chosen = kept[index] if kept is not None else self._choose(index, scores)
                self.trace.kept.append(chosen)
                if stage.merge:
                    self._merge(chosen)
            scores = self._layers(index)

    def _image_row(self, token: int) -> int:
        assert self.prompt.image_start is not None
        return self.prompt.image_start + token

    def _rows(self, index: int) -> list[int]:
        start = self.prompt.image_start
        if start is None:
            return list(range(self.length))
        inside = range(start, start + TOKENS)
        kept = {self._image_row(token) for token in self.trace.kept[index]}
        return [row for row in range(self.length) if row not in inside or row in kept]

    def _layers(self, index: int) -> dict[int, float]:
        stage, rows = self.plan.stages[index], self._rows(index)
        x = self.stream[rows]
        self.trace.entering.append((rows, x.clone()))
        scores: dict[int, float] = {}
        for number in range(stage.first, stage.last):
            x, heads = self.model.layer(number, x, rows)
            if self._scored(index + 1, number):
                for token, score in self._score(index, rows, heads).items():
                    scores[token] = scores.get(token, 0.0) + score
        self.stream[rows] = x
        if index == len(self.plan.stages) - 1:
            self.trace.final = self.model.norm("model.norm.weight", x)
            self.trace.logits = self.model._weight("lm_head.weight") @ self.trace.final[-1]
        elif scores:
            self.trace.scores[index + 1] = scores
        return scores

    def _scored(self, index: int, layer: int) -> bool:
        if not self.chooses or index >= len(self.plan.stages):
            return False
        stage = self.plan.stages[index]
        return stage.by_score and stage.first - stage.layers <= layer

    def _score(self, index: int, rows: list[int], heads: Heads) -> dict[int, float]:
        """Mean over heads and rows of the attention to the image tokens of a stage."""
        stage, end = self.plan.stages[index + 1], len(self.prompt)
        behind = {"readout": [end - 1], "seg": [end], "mean": [end - 1, end]}[stage.row]
        columns = [rows.index(self._image_row(token)) for token in self.trace.kept[index]]
        each = [self._attention(stage, heads, rows.index(row), columns) for row in behind]
        mean = sum(each, torch.zeros(len(columns))) / len(each)
        return dict(zip(self.trace.kept[index], mean.tolist(), strict=True))

    def _attention(self, stage: Stage, heads: Heads, last: int, columns: list[int]) -> Tensor:
        """Head mean of one row's attention to some of those that it sees."""
        model, total = self.model, torch.zeros(len(columns))
        for head in range(model.heads):
            shared = head * model.kv_heads // model.heads
            query = heads.turned_query if stage.rope else heads.query
            key = heads.turned_key if stage.rope else heads.key
            logits = key[shared, : last + 1] @ query[head, last] / model.width**0.5
            if stage.softmax == "image_keys":
                total += logits[columns].softmax(0)
            else:
                total += logits.softmax(0)[columns]
        return total / model.heads

    def _choose(self, index: int, scores: Mapping[int, float]) -> list[int]:
        stage = self.plan.stages[index]
        if stage.count == TOKENS:
            return list(range(TOKENS))
        attention = self.seen.cls_attention.tolist()
        spread = [scores.get(token, -torch.inf) for token in range(TOKENS)]
        match stage.rule:
            case "grid":
                return selection.grid(stage.count)
            case "uniform":
                return selection.uniform(stage.count)
            case "random":
                return selection.random(stage.count, self.prompt.seed)
            case "cls" | "prumerge":
                return selection.best(attention, stage.count)
            case "prumerge+":
                return selection.prumerge_plus(attention, stage.count)
            case "seg_first":
                return selection.seg_first(self.seen.instances, stage.count)
            case "attention":
                return selection.best(spread, stage.count, self.trace.kept[index - 1])
            case "feather":
                assert self.trace.kept[index - 1] == list(range(TOKENS))
                return selection.feather(spread, stage.count, stride=3)
            case "resprune":
                behind = self.embeds[self._image_row(TOKENS) : len(self.prompt)]
                return selection.resprune(self.seen.rows, behind, stage.count)
        raise ValueError(stage.rule)

    def _reactivate(self, index: int) -> None:
        """What image tokens hold that the stage before left out, where this one may take them."""
        if index == 0 or self.plan.stages[index].by_score or self.plan.scatter == "embedding":
            return
        before = self.trace.kept[index - 1]
        held = {token: self.stream[self._image_row(token)].clone() for token in before}
        for token in range(TOKENS):
            if token in held:
                continue
            row = self._image_row(token)
            other = selection.nearest(token, before, self.plan.representative)
            if self.plan.scatter == "copy":
                self.stream[row] = held[other]
            else:
                moved = held[other] - self.embeds[self._image_row(other)]
                self.stream[row] = self.embeds[row] + moved

    def _merge(self, chosen: list[int]) -> None:
        assert self.prompt.image is not None
        new = self.model.merged(self.prompt.image, chosen)
        for token, row in zip(chosen, new, strict=True):
            self.stream[self._image_row(token)] = row
