"""Which parameters are trained by which optimiser."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from vllm_csp.training.settings import TrainingSettings
from vllm_csp.training.student import Student


def build_optimisers(student: Student, settings: TrainingSettings) -> list[Optimizer]:
    """Muon for the matrices inside the new networks, AdamW for all else.

    Muon needs about half of AdamW's steps for transformers trained from nothing. Every group has
    its highest learning rate as `peak`.
    """
    decay = settings.weight_decay
    decoder = list(student.mask_decoder.parameters())
    inside = _matrices(student.vision_tower) + _matrices(student.language_model.model.layers)
    taken = {id(parameter) for parameter in (*decoder, *inside)}
    rest = [p for p in student.parameters() if p.requires_grad and id(p) not in taken]
    return [
        Muon(
            [{"params": inside, "peak": settings.matrix_learning_rate}],
            weight_decay=decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        AdamW(
            [
                {"params": rest, "peak": settings.learning_rate},
                {"params": decoder, "peak": settings.decoder_learning_rate},
            ],
            weight_decay=decay,
            betas=(0.9, 0.98),
        ),
    ]


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return [layer.get_parameter("weight") for layer in layers]


def set_rates(optimisers: list[Optimizer], share: float) -> None:
    """Set all learning rates to a share of their peak."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share


def state_of(optimisers: list[Optimizer]) -> list[dict[str, torch.Tensor]]:
    """States of the optimisers, to be kept."""
    return [optimiser.state_dict() for optimiser in optimisers]
