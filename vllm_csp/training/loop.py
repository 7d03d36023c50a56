"""The training loop: fits the networks, keeps its state, logs its losses."""

from __future__ import annotations

import json
import math
import time
from dataclasses import fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vllm_csp.cpu_dtypes import has_instructions
from vllm_csp.durable import whole_file
from vllm_csp.training import losses
from vllm_csp.training.attention import look_loss
from vllm_csp.training.optimisers import build_optimisers, set_rates, state_of
from vllm_csp.training.packing import Packed
from vllm_csp.training.settings import TrainingSettings
from vllm_csp.training.stream import Step, Stream
from vllm_csp.training.student import Prediction, Student

console = Console(stderr=True)


class Trainer:
    """One run: student, optimisers, step; `state.pt` in its folder holds all three."""

    def __init__(
        self,
        settings: TrainingSettings,
        student: Student,
        around_image: tuple[list[int], list[int]],
        folder: Path,
    ) -> None:
        self.settings, self.folder, self.step = settings, folder, 0
        self.around_image = around_image
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.student = student.to(self.device)
        self.optimisers = build_optimisers(student, settings)
        if self.state_file.exists():
            state = torch.load(self.state_file, map_location=self.device, weights_only=True)
            student.load_state_dict(state["student"])
            for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(kept)
            self.step = state["step"]

    @property
    def state_file(self) -> Path:
        """Where the run is kept."""
        return self.folder / "state.pt"

    def save(self) -> None:
        """Write the state; an interrupted write leaves the former one."""
        state = {
            "student": self.student.state_dict(),
            "optimisers": state_of(self.optimisers),
            "step": self.step,
        }
        with whole_file(self.state_file) as partial:
            torch.save(state, partial)

    def train(self, stream: Stream, minutes: float, workers: int, every: int = 50) -> None:
        """Train until the last step, or until the minutes are over; saves at the end."""
        deadline = time.monotonic() + 60 * minutes
        steps = range(self.step, self.settings.steps)
        loader = DataLoader(stream, batch_size=None, sampler=steps, num_workers=workers)
        seen: dict[str, list[float]] = {}
        began = time.monotonic()
        for step in loader:
            for name, value in self.update(step).items():
                seen.setdefault(name, []).append(value)
            if self.step % every == 0:
                means = {name: round(fmean(values), 4) for name, values in seen.items()}
                seconds = round((time.monotonic() - began) / every, 3)
                self._log({"step": self.step, "seconds_per_step": seconds, **means})
                seen, began = {}, time.monotonic()
            if self.step % (4 * every) == 0:
                self.save()
            if time.monotonic() > deadline:
                break
        self.save()

    def update(self, step: Step) -> dict[str, float]:
        """One optimiser step; returns its losses."""
        self._set_rates()
        self.student.train()
        parts = {f"fresh_{k}": v for k, v in self._fresh_losses(step.fresh).items()}
        if step.embedded is not None and step.embeddings is not None:
            parts |= self._embedded_losses(step.embedded, step.embeddings)
        total = torch.stack([value for name, value in parts.items() if name != "iou"]).sum()
        self.student.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), self.settings.clip_norm)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return {name: float(value.detach()) for name, value in parts.items()}

    def _fresh_losses(self, batch: Packed) -> dict[str, Tensor]:
        moved = _moved(batch, self.device)
        return self._cheap_losses(moved, self._predict(moved))

    def _embedded_losses(self, batch: Packed, embeddings: Tensor) -> dict[str, Tensor]:
        moved = _moved(batch, self.device)
        prediction = self._predict(moved)
        parts = self._cheap_losses(moved, prediction)
        chosen = self._choose(moved)
        with self._half():
            images = embeddings.to(self.device)[moved.picture[chosen]]
            logits = self.student.masks(images.float(), prediction.queries[chosen])
        frames = moved.frame[chosen]
        parts["mask"] = losses.mask_loss(logits, frames)
        parts["iou"] = torch.tensor(losses.mean_iou(logits, frames))
        return parts

    def _predict(self, batch: Packed) -> Prediction:
        with self._half():
            prediction: Prediction = self.student(
                batch, *self.around_image, blind=self.step < self.settings.blind_until
            )
        return prediction

    def _cheap_losses(self, batch: Packed, prediction: Prediction) -> dict[str, Tensor]:
        settings = self.settings
        early = self.step < settings.decoder_from
        weight = settings.point_weight if early else settings.late_point_weight
        prompts = self.student.point_prompts(batch.point.nan_to_num())
        return {
            "text": settings.text_weight
            * nn.functional.cross_entropy(prediction.logits, prediction.labels),
            "grid": settings.grid_weight * losses.grid_loss(prediction.grids, batch.grid),
            "words": settings.word_weight
            * losses.word_loss(prediction.words, batch.words, batch.known),
            "meaning": settings.meaning_weight
            * losses.meaning_loss(
                prediction.meanings,
                batch.grid,
                batch.words[batch.picture],
                batch.known[batch.picture],
            ),
            "place": settings.place_weight * losses.place_loss(prediction.places, batch.point),
            "row_place": settings.row_place_weight * losses.row_place_loss(prediction.row_places),
            "look": settings.look_weight * look_loss(prediction.looks, batch, self.student.shape),
            "point": weight * losses.point_loss(prediction.queries, prompts, batch.point),
        }

    def _choose(self, batch: Packed) -> Tensor:
        """Rows of the read-outs whose masks are decoded: `settings.masks` of all, drawn."""
        generator = torch.Generator().manual_seed(self.settings.seed + self.step)
        order = torch.randperm(len(batch.row), generator=generator).to(batch.row.device)
        return order[: self.settings.masks]

    def _half(self) -> torch.autocast:
        # Emulated, bf16 is many times slower than fp32 (`cpu_dtypes`).
        fast = self.device.type != "cpu" or has_instructions(torch.bfloat16)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)

    def _set_rates(self) -> None:
        settings = self.settings
        warm = min(1.0, (self.step + 1) / settings.warmup)
        rest = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / settings.steps)))
        set_rates(self.optimisers, warm * max(rest, 0.02))

    def _log(self, row: dict[str, Any]) -> None:
        console.print(json.dumps(row), highlight=False)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def _moved(batch: Packed, device: torch.device) -> Packed:
    """The batch with all its tensors on a device."""
    moved: dict[str, Any] = {
        field.name: value.to(device)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return replace(batch, **moved)
