"""Runs decoder layers stage by stage on a step's token plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vllm_csp.device_copy import on_device
from vllm_csp.kv.tracker import BatchTracker
from vllm_csp.models.row_scorer import RowScorer
from vllm_csp.models.seg_probe import SegProbe
from vllm_csp.models.vision_probe import ImageExtras
from vllm_csp.timeline import Timeline
from vllm_csp.tokens import Schedule, TokenPlan
from vllm_csp.tokens.scatter import reactivate
from vllm_csp.tokens.score_rows import ScoreRows
from vllm_csp.tokens.selectors import Need, ScoreSpec, SelectionInputs, spread_scores


class StageRunner:
    """The stages of one model.

    Steps without an image prefill (decoding, mostly) run all rows in every stage: only lengths and
    slots differ between stages then, and those are in the attention metadata already.
    """

    def __init__(self, schedule: Schedule, tracker: BatchTracker) -> None:
        self.schedule = schedule
        self.tracker = tracker
        # Of the step's images, in batch order; set by the owning model when a selector needs them.
        self.extras = ImageExtras()
        self.timeline = Timeline(enabled=False)
        # Per stage the tokens [P, budget] kept for the images of the last step that had any.
        self.selected: list[Tensor] = []
        # How many images have been another request's rows in the first stages, since start.
        self.shared_images = 0

    def run(
        self,
        layers: Sequence[nn.Module],
        norm: nn.Module,
        positions: Tensor,
        x: Tensor,
        embed_seg: Callable[[int], Tensor],
    ) -> Tensor:
        """Final-norm hidden states [T, D] of a step.

        x [T, D] are its input embeddings; embed_seg gives as many of [SEG] as it is told.
        """
        plan = self.tracker.current_plan
        if len(plan.image_requests) > 0:
            step = _Step(self, plan, positions, x, embed_seg)
            hidden = step.run(layers, norm)
            self.selected = step.selected
            self.shared_images += int(np.count_nonzero(plan.stages[0].shared))
            return hidden
        residual: Tensor | None = None
        for layer in layers:
            x, residual = layer(positions, x, residual)
        hidden, _ = norm(x, residual)
        return hidden

    def kept_tokens(self, batch_row: int) -> list[Tensor]:
        """Per stage the image tokens [budget] of a request prefilled in this step, else empty."""
        owners = self.tracker.current_plan.image_requests
        (place,) = (owners == batch_row).nonzero()
        return [selected[place[0]] for selected in self.selected] if len(place) else []


class _Group:
    """Images of a step that follow one schedule: their places among the P images."""

    def __init__(self, schedule: Schedule, places: list[int], device: torch.device) -> None:
        self.schedule = schedule
        self.places = places
        self.index = on_device(np.array(places), device)


class _Step:
    """One step with P image prefills.

    The residual stream of the whole batch is kept in `stream`; a stage gathers its rows from it and
    writes them back. Tokens that a stage leaves out keep what they had, which is what re-expansion
    with scatter mode "embedding" asks for.
    """

    def __init__(
        self,
        runner: StageRunner,
        plan: TokenPlan,
        positions: Tensor,
        embeds: Tensor,
        embed_seg: Callable[[int], Tensor],
    ) -> None:
        self.runner = runner
        self.schedule = runner.schedule
        self.plan = plan
        self.positions = positions[: plan.num_rows]
        self.embeds = embeds[: plan.num_rows]
        self.padding = embeds.shape[0] - plan.num_rows
        self.image_rows = on_device(plan.image_rows, embeds.device)
        self.stream = self.embeds.clone()
        self.selected: list[Tensor] = []
        self.groups = self._groups()
        self.last_probed = max(_last_probed(group.schedule) for group in self.groups)
        if self.last_probed >= 0:
            behind = plan.batch.scored_at[plan.image_requests] + 1
            self.probe_positions = on_device(behind, embeds.device)
            self.probes = embed_seg(len(behind))

    def run(self, layers: Sequence[nn.Module], norm: nn.Module) -> Tensor:
        """Hidden states [T, D]; rows that the last stage leaves out are zero."""
        out = torch.zeros_like(self.stream)
        scorers: Mapping[ScoreSpec, RowScorer] = {}
        last = len(self.schedule.stages) - 1
        for index, stage in enumerate(self.schedule.stages):
            self._part(index)
            self._choose(index, scorers)
            rows = self.plan.stages[index].fill(self.selected[index])
            scorers = self._scorers(index + 1) if index < last else {}
            some = layers[stage.first_layer : stage.last_layer]
            with self.runner.timeline.part(
                "vllm_csp.stage",
                stage=index,
                first_layer=stage.first_layer,
                last_layer=stage.last_layer,
                rows=len(rows),
                images=len(self.plan.image_requests),
            ):
                x, residual = self._layers(some, rows, index, scorers.values())
            if index == last:
                out[rows] = norm(x, residual)[0]
            else:
                self.stream[rows] = x + residual
        return nn.functional.pad(out, (0, 0, 0, self.padding)) if self.padding else out

    def _part(self, index: int) -> None:
        """Give requests that shared another's rows up to stage `index` these rows' states."""
        own, other = self.plan.parting(index)
        if len(own) > 0:
            device = self.stream.device
            self.stream[on_device(own, device)] = self.stream[on_device(other, device)]

    def _groups(self) -> list[_Group]:
        """The images by schedule; one group unless requests chose their own policies."""
        places: dict[Schedule, list[int]] = {}
        for place, row in enumerate(self.plan.image_requests):
            request = self.runner.tracker.rows[int(row)]
            places.setdefault(request.schedule or self.schedule, []).append(place)
        return [_Group(schedule, some, self.embeds.device) for schedule, some in places.items()]

    def _layers(
        self, layers: Sequence[nn.Module], rows: Tensor, index: int, scorers: Iterable[RowScorer]
    ) -> tuple[Tensor, Tensor]:
        if self.plan.stages[index].is_identity:
            x, positions = self.stream, self.positions
        else:
            x, positions = self.stream[rows], self.positions[rows]
        count, probe = len(x), None
        if index <= self.last_probed:
            probe = SegProbe(self._score_rows(index)["seg"][0], x.device)
            x = torch.cat((x, self.probes))
            positions = torch.cat((positions, self.probe_positions))
        copied = self.plan.stages[index].copies.rows
        copies = on_device(copied, x.device) if len(copied) > 0 else None
        residual: Tensor | None = None
        for left, layer in zip(range(len(layers), 0, -1), layers, strict=True):
            scoring = [one for one in scorers if one.spec.layers >= left]
            with _attached(layer, scoring, probe, copies):
                x, residual = layer(positions, x, residual)
        assert residual is not None
        if probe is not None:
            self.probes = x[count:] + residual[count:]
        return x[:count], residual[:count]

    def _scorers(self, index: int) -> dict[ScoreSpec, RowScorer]:
        """What stage `index` is chosen by, one scorer per kind of score."""
        specs = {group.schedule.score(index) for group in self.groups} - {None}
        if not specs:
            return {}
        rows, device = self._score_rows(index - 1), self.stream.device
        return {spec: RowScorer(rows[spec.row], spec, device) for spec in specs if spec is not None}

    def _score_rows(self, index: int) -> dict[str, list[ScoreRows]]:
        """Rows of stage `index` to score by, for each kind of score row."""
        stage = self.plan.stages[index]
        readout = stage.score_rows(self.plan.batch)
        seg = readout.followed(stage.num_rows)
        return {"readout": [readout], "last": [readout], "seg": [seg], "mean": [readout, seg]}

    def _choose(self, index: int, scorers: Mapping[ScoreSpec, RowScorer]) -> None:
        """Select the tokens of stage `index`, and make those that come back ready."""
        count, budget = len(self.plan.image_requests), self.schedule.stages[index].budget
        chosen = torch.empty((count, budget), dtype=torch.int64, device=self.stream.device)
        for group in self.groups:
            if group.schedule.reexpands(index):
                self._reactivate(group, self.selected[-1][group.index])
            selector = group.schedule.stages[index].selector
            spec = group.schedule.score(index)
            inputs = self._inputs(
                group, selector.all_needs, None if spec is None else scorers[spec]
            )
            tokens = selector.select(inputs, budget)
            chosen[group.index] = tokens
            if selector.merges_features:
                rows = self.image_rows[group.index].gather(1, tokens)
                self.stream[rows] = selector.merge(inputs, tokens).to(self.stream.dtype)
        holders = self.plan.holders(index)
        if (holders != np.arange(count)).any():
            # Equal but for rounding, which another place in a batch may bring.
            chosen = chosen[on_device(holders, chosen.device)]
        self.selected.append(chosen)

    def _inputs(
        self, group: _Group, needs: frozenset[Need], scorer: RowScorer | None
    ) -> SelectionInputs:
        tracker, owners = self.runner.tracker, self.plan.image_requests
        seeds = [tracker.rows[int(owners[place])].seed for place in group.places]
        text, mask = self._question(group) if "text_embeddings" in needs else (None, None)
        previous = self.selected[-1][group.index] if self.selected else None
        scores = None
        if scorer is not None:
            assert previous is not None and scorer.scores is not None
            total = self.schedule.num_image_tokens
            scores = spread_scores(scorer.scores[group.index], previous, total)
        images = self.image_rows[group.index]
        return SelectionInputs(
            batch_size=len(group.places),
            grid=self.schedule.grid,
            device=self.stream.device,
            image_features=self.embeds[images] if "image_features" in needs else None,
            cls_attention=_of(group, self.runner.extras.cls_attention),
            key_features=_of(group, self.runner.extras.key_features),
            instance_masks=_of(group, self.runner.extras.instance_masks),
            text_embeddings=text,
            text_mask=mask,
            readout_scores=scores,
            seeds=on_device(np.array(seeds, dtype=np.int64), self.stream.device),
            previous=previous,
        )

    def _question(self, group: _Group) -> tuple[Tensor, Tensor]:
        """Embeddings [B, S, D] and mask [B, S] of the prompt rows behind each image."""
        batch, owner = self.plan.batch, self.plan.image_requests[group.places]
        lengths = (batch.prompt_len - batch.image_end)[owner]
        column = np.arange(lengths.max())
        mask = column < lengths[:, None]
        rows = np.where(mask, self.plan.image_rows[group.places, -1:] + 1 + column, 0)
        device = self.stream.device
        return self.embeds[on_device(rows, device)], on_device(mask, device)

    def _reactivate(self, group: _Group, kept: Tensor) -> None:
        schedule = group.schedule
        if schedule.scatter == "embedding":
            return
        images = self.image_rows[group.index]
        self.stream[images] = reactivate(
            self.embeds[images],
            kept,
            self.stream[images.gather(1, kept)],
            schedule.grid,
            schedule.scatter,
            schedule.representative,
        )


def _last_probed(schedule: Schedule) -> int:
    """The last stage that [SEG] rows run in: the one before the last they choose for, else -1."""
    scores = (schedule.score(index) for index in range(len(schedule.stages)))
    return max((i for i, score in enumerate(scores) if score and score.needs_seg), default=0) - 1


def _of(group: _Group, values: Tensor | None) -> Tensor | None:
    return None if values is None else values[group.index]


@contextmanager
def _attached(
    layer: Any, scorers: list[RowScorer], probe: SegProbe | None, copies: Tensor | None
) -> Iterator[None]:
    """The layer's attention with scorers, [SEG] rows and shared rows for the time of a call."""
    attention = layer.self_attn
    attention.scorers, attention.probe, attention.copies = scorers, probe, copies
    try:
        yield
    finally:
        attention.scorers, attention.probe, attention.copies = (), None, None
