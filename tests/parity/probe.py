"""Runs in the worker: notes what passes through the model, for `LLM.apply_model`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vllm_csp.masks import unpack_mask
from vllm_csp.models.lisa import LISAForCausalLM

Floats = npt.NDArray[np.float32]
Notes = dict[str, Floats]

# Layers before which the residual stream is noted; the oracle has those of 0, 4 and the end.
MIDDLE_LAYER = 4


def attach(model: LISAForCausalLM) -> None:
    """Start noting, until `detach`, with no image known to SAM's cache."""
    model.masks.embeddings._entries.clear()
    notes: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    hooks: list[Any] = []
    model.parity_notes, model.parity_hooks = notes, hooks
    llama = model.language_model.model

    def note_inputs(module: nn.Module, name: str) -> None:
        hooks.append(
            module.register_forward_pre_hook(lambda _, inputs: _note(notes, name, inputs[0]))
        )

    def note_outputs(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_hook(lambda _, __, out: _note(notes, name, out)))

    def note_stream(module: nn.Module, name: str, first: int) -> None:
        hooks.append(
            module.register_forward_pre_hook(
                lambda _, inputs: _note(notes, name, _stream(*inputs[first : first + 2]))
            )
        )

    note_inputs(model.vision_tower, "clip_pixels")
    note_inputs(model.visual_model.image_encoder, "sam_pixels")
    note_outputs(model.visual_model.image_encoder, "sam_embedding")
    note_inputs(model.text_hidden_fcs[0], "readout_hidden")
    note_outputs(model.text_hidden_fcs[0], "readout_embeddings")
    note_outputs(model.visual_model.mask_decoder, "low_res_logits")
    note_stream(llama.layers[0], "hidden_0", 1)
    note_stream(llama.layers[MIDDLE_LAYER], "hidden_4", 1)
    note_stream(llama.norm, "hidden_8", 0)


def take(model: LISAForCausalLM) -> Notes:
    """What was noted since the last call, steps joined along rows."""
    notes: defaultdict[str, list[torch.Tensor]] = model.parity_notes
    joined = {name: torch.cat(parts).float().numpy() for name, parts in notes.items()}
    notes.clear()
    return joined


def detach(model: LISAForCausalLM) -> None:
    """Stop noting."""
    for hook in model.parity_hooks:
        hook.remove()


def _note(notes: defaultdict[str, list[torch.Tensor]], name: str, value: Any) -> None:
    tensor = value[0] if isinstance(value, tuple) else value
    notes[name].append(tensor.detach().cpu().clone())


def _stream(hidden: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
    return hidden if residual is None else hidden + residual


def decode(model: LISAForCausalLM, *, key: str, queries: Floats) -> list[npt.NDArray[np.bool_]]:
    """Masks of queries [n, out_dim] on an image that is still cached."""
    image = model.masks.embeddings.get(key)
    assert image is not None
    [found] = model.masks.decode([image], [torch.from_numpy(queries)])
    return [unpack_mask(bits, found.size) for bits in found.masks]
