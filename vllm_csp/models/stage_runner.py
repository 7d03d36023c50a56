"""Runs decoder layers stage by stage on a step's token plan."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vllm_csp.kv.tracker import BatchTracker
from vllm_csp.tokens import Schedule, TokenPlan
from vllm_csp.tokens.plan import on_device
from vllm_csp.tokens.scatter import reactivate
from vllm_csp.tokens.selectors import Need, SelectionInputs, spread_scores

if TYPE_CHECKING:
    from collections.abc import Iterator


class StageRunner:
    """The stages of one model.

    The residual stream of the whole batch is kept in `stream`; a stage gathers its rows from it and
    writes them back. Tokens that a stage leaves out keep what they had, which is what re-expansion
    with scatter mode "embedding" asks for. Steps without an image prefill (decoding, mostly) run
    all rows in every stage, so nothing is gathered then.
    """

    def __init__(self, schedule: Schedule, tracker: BatchTracker) -> None:
        self.schedule = schedule
        self.tracker = tracker
        # Of the step's images, in batch order; set by the owning model when a selector needs them.
        self.cls_attention: Tensor | None = None
        self.key_features: Tensor | None = None
        # The image tokens that each stage kept for the step's images, for statistics and tests.
        self.selected: list[Tensor] = []

    def run(
        self, layers: Sequence[nn.Module], norm: nn.Module, positions: Tensor, x: Tensor
    ) -> Tensor:
        """Final-norm hidden states [T, D] of a step; x [T, D] are its input embeddings."""
        plan = self.tracker.current_plan
        if len(plan.image_requests) == 0:
            return self._run_all(layers, norm, positions, x)
        return _Step(self, plan, positions, x).run(layers, norm)

    def kept_tokens(self, batch_row: int) -> list[Tensor]:
        """Per stage the image tokens [budget] of a request prefilled in this step, else empty."""
        owners = self.tracker.current_plan.image_requests
        (place,) = (owners == batch_row).nonzero()
        return [selected[place[0]] for selected in self.selected] if len(place) else []

    def _run_all(
        self, layers: Sequence[nn.Module], norm: nn.Module, positions: Tensor, x: Tensor
    ) -> Tensor:
        residual: Tensor | None = None
        for layer in layers:
            x, residual = layer(positions, x, residual)
        hidden, _ = norm(x, residual)
        return hidden


class _Step:
    """One step with image prefills."""

    def __init__(
        self, runner: StageRunner, plan: TokenPlan, positions: Tensor, embeds: Tensor
    ) -> None:
        self.runner = runner
        self.schedule = runner.schedule
        self.plan = plan
        self.positions = positions[: plan.num_rows]
        self.embeds = embeds[: plan.num_rows]
        self.padding = embeds.shape[0] - plan.num_rows
        self.image_rows = on_device(plan.image_rows, embeds.device)
        self.stream = self.embeds.clone()

    def run(self, layers: Sequence[nn.Module], norm: nn.Module) -> Tensor:
        selected: Tensor | None = None
        scores: Tensor | None = None
        self.runner.selected = []
        out = torch.zeros_like(self.stream)
        last = len(self.schedule.stages) - 1
        for index, stage in enumerate(self.schedule.stages):
            if self.schedule.reexpands(index) and selected is not None:
                self._reactivate(selected)
            selected = self._select(index, selected, scores)
            self.runner.selected.append(selected)
            if index == 0 and stage.selector.merges_features:
                self._merge(index, selected)
            rows = self.plan.stages[index].fill(selected)
            scorer = self._scorer(index + 1) if index < last else None
            x, residual = self._layers(
                layers[stage.first_layer : stage.last_layer], rows, index, scorer
            )
            if index == last:
                out[rows] = norm(x, residual)[0]
            else:
                self.stream[rows] = x + residual
            scores = self._spread(scorer, selected)
        return nn.functional.pad(out, (0, 0, 0, self.padding)) if self.padding else out

    def _layers(
        self, layers: Sequence[nn.Module], rows: Tensor, index: int, scorer: Any
    ) -> tuple[Tensor, Tensor]:
        if self.plan.stages[index].is_identity:
            x, positions = self.stream, self.positions
        else:
            x, positions = self.stream[rows], self.positions[rows]
        residual: Tensor | None = None
        scored = self.schedule.score_layers(index + 1) if scorer is not None else range(0)
        first = self.schedule.stages[index].first_layer
        for number, layer in enumerate(layers, start=first):
            with _attached(layer, scorer if number in scored else None):
                x, residual = layer(positions, x, residual)
        assert residual is not None
        return x, residual

    def _scorer(self, index: int) -> Any:
        """A scorer for the choice of stage `index`, or None if it needs no attention."""
        from vllm_csp.models.staged_llama import RowScorer

        spec = self.schedule.score(index)
        if spec is None:
            return None
        rows = self.plan.stages[index - 1].score_rows(self.plan.batch)
        return RowScorer(rows, spec, self.stream.device)

    def _spread(self, scorer: Any, selected: Tensor) -> Tensor | None:
        if scorer is None:
            return None
        return spread_scores(scorer.scores, selected, self.schedule.num_image_tokens)

    def _select(self, index: int, previous: Tensor | None, scores: Tensor | None) -> Tensor:
        stage = self.schedule.stages[index]
        inputs = self._inputs(stage.selector.needs, previous, scores)
        return stage.selector.select(inputs, stage.budget)

    def _inputs(
        self, needs: frozenset[Need], previous: Tensor | None, scores: Tensor | None
    ) -> SelectionInputs:
        tracker, plan = self.runner.tracker, self.plan
        seeds = [tracker.rows[int(row)].seed for row in plan.image_requests]
        text, mask = self._question() if "text_embeddings" in needs else (None, None)
        return SelectionInputs(
            batch_size=len(plan.image_requests),
            grid=self.schedule.grid,
            device=self.stream.device,
            image_features=self.embeds[self.image_rows] if "image_features" in needs else None,
            cls_attention=self.runner.cls_attention,
            key_features=self.runner.key_features,
            text_embeddings=text,
            text_mask=mask,
            readout_scores=scores,
            seeds=torch.tensor(seeds, dtype=torch.int64, device=self.stream.device),
            previous=previous,
        )

    def _question(self) -> tuple[Tensor, Tensor]:
        """Embeddings [P, S, D] and mask [P, S] of the prompt rows behind each image."""
        batch, owner = self.plan.batch, self.plan.image_requests
        lengths = torch.from_numpy((batch.prompt_len - batch.image_end)[owner])
        column = torch.arange(int(lengths.max()))
        mask = column < lengths[:, None]
        rows = torch.from_numpy(self.plan.image_rows[:, -1:] + 1) + column
        rows = torch.where(mask, rows, 0).to(self.stream.device)
        return self.embeds[rows], mask.to(self.stream.device)

    def _reactivate(self, kept: Tensor) -> None:
        if self.schedule.scatter == "embedding":
            return
        hidden = self.stream[self.image_rows.gather(1, kept)]
        self.stream[self.image_rows] = reactivate(
            self.embeds[self.image_rows],
            kept,
            hidden,
            self.schedule.grid,
            self.schedule.scatter,
            self.schedule.representative,
        )

    def _merge(self, index: int, selected: Tensor) -> None:
        selector = self.schedule.stages[index].selector
        merged = selector.merge(self._inputs(selector.needs, None, None), selected)
        self.stream[self.image_rows.gather(1, selected)] = merged.to(self.stream.dtype)


@contextmanager
def _attached(layer: Any, scorer: Any) -> Iterator[None]:
    """The layer's attention with a scorer for the time of a call."""
    layer.self_attn.scorer = scorer
    try:
        yield
    finally:
        layer.self_attn.scorer = None
