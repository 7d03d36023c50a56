"""Runs in the worker: notes what passes through the model, for `LLM.apply_model`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import nn

from vllm_csp.models.lisa import LISAForCausalLM

Notes = dict[str, np.ndarray[Any, Any]]

# Layers before which the residual stream is noted; the oracle has those of 0, 4 and the end.
MIDDLE_LAYER = 4


def attach(model: LISAForCausalLM) -> None:
    """Start noting; once per model."""
    notes: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    model.parity_notes = notes
    llama = model.language_model.model

    def note_inputs(module: nn.Module, name: str) -> None:
        module.register_forward_pre_hook(lambda _, inputs: _note(notes, name, inputs[0]))

    def note_outputs(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _, __, output: _note(notes, name, output))

    note_inputs(model.vision_tower, "clip_pixels")
    note_inputs(model.visual_model.image_encoder, "sam_pixels")
    note_outputs(model.visual_model.image_encoder, "sam_embedding")
    note_inputs(model.text_hidden_fcs[0], "readout_hidden")
    note_outputs(model.text_hidden_fcs[0], "readout_embeddings")
    note_outputs(model.visual_model.mask_decoder, "low_res_logits")
    for name, layer in (("hidden_0", 0), ("hidden_4", MIDDLE_LAYER)):
        llama.layers[layer].register_forward_pre_hook(
            lambda _, inputs, name=name: _note(notes, name, _stream(*inputs[1:3]))
        )
    llama.norm.register_forward_pre_hook(
        lambda _, inputs: _note(notes, "hidden_8", _stream(*inputs[:2]))
    )


def take(model: LISAForCausalLM) -> Notes:
    """What was noted since the last call, steps joined along rows."""
    notes: defaultdict[str, list[torch.Tensor]] = model.parity_notes
    joined = {name: torch.cat(parts).float().numpy() for name, parts in notes.items()}
    notes.clear()
    return joined


def _note(notes: defaultdict[str, list[torch.Tensor]], name: str, value: Any) -> None:
    tensor = value[0] if isinstance(value, tuple) else value
    notes[name].append(tensor.detach().cpu().clone())


def _stream(hidden: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
    return hidden if residual is None else hidden + residual
