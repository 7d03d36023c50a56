"""LISA's language model in plain PyTorch, a set of image tokens per layer: no vLLM, no KV cache.

Every step recomputes the whole sequence, one request at a time, in fp32. A stage's rows are simply
the rows it keeps; positions are the original ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionModel

from tests.staged import selection
from tests.staged.plans import Plan, Prompt, Trace
from tests.staged.request_pass import SEG_TOKEN, Heads, RequestPass
from vllm_csp.images import clip_crop

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Seen:
    """What the vision side gives: rows [N, D], CLS attention [N], keys [N, Dk], superpixels [N]."""

    rows: Tensor
    cls_attention: Tensor
    keys: Tensor
    instances: list[int]


class Model:
    """A checkpoint in the published layout."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.weights = _weights(folder)
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config["num_key_value_heads"]
        self.width = self.config["hidden_size"] // self.heads
        self.num_layers = self.config["num_hidden_layers"]
        self._tower = folder / self.config["mm_vision_tower"]
        self._seen: dict[bytes, Seen] = {}
        self._merged: dict[tuple[bytes, tuple[int, ...]], Tensor] = {}

    @cached_property
    def tower(self) -> CLIPVisionModel:
        """CLIP of transformers, fp32."""
        return CLIPVisionModel.from_pretrained(self._tower, dtype=torch.float32).eval()

    # --- vision ---

    def see(self, image: Image.Image) -> Seen:
        """Rows for the language model and what selectors look at, from the penultimate layer."""
        key = image.tobytes()
        if key not in self._seen:
            self._seen[key] = self._look(image)
        return self._seen[key]

    @torch.no_grad()
    def _look(self, image: Image.Image) -> Seen:
        colours = torch.from_numpy(clip_crop(image)).float() / 255
        pixels = (colours - torch.tensor(MEAN)) / torch.tensor(STD)
        states = self.tower(pixels.permute(2, 0, 1)[None], output_hidden_states=True).hidden_states
        vision = getattr(self.tower, "vision_model", self.tower)
        layer = vision.encoder.layers[-2]
        normed = layer.layer_norm1(states[-3])[0]
        query, keys = layer.self_attn.q_proj(normed)[0], layer.self_attn.k_proj(normed)
        heads = layer.self_attn.num_heads
        width = keys.shape[1] // heads
        attention = torch.zeros(len(keys))
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            attention += (keys[:, part] @ query[part] / width**0.5).softmax(0) / heads
        features = states[-2][0, 1:]
        rows = features @ self._weight("model.mm_projector.weight").T
        rows = rows + self._weight("model.mm_projector.bias")
        return Seen(rows, attention[1:], keys[1:], selection.superpixels(colours))

    def merged(self, image: Image.Image, kept: list[int]) -> Tensor:
        """Rows [K, D] of kept tokens that take up others of the image."""
        key = (image.tobytes(), tuple(kept))
        if key not in self._merged:
            seen = self.see(image)
            self._merged[key] = selection.merged(seen.rows, seen.cls_attention, seen.keys, kept)
        return self._merged[key]

    # --- language model ---

    def greedy(self, prompt: Prompt, plan: Plan, steps: int) -> tuple[list[int], Trace]:
        """Generated ids, and the pass over prompt and all of them but the last."""
        trace = self.run(prompt, plan)
        generated = [int(trace.logits.argmax())]
        for _ in range(steps - 1):
            trace = self.run(prompt, plan, generated, trace.kept)
            generated.append(int(trace.logits.argmax()))
        return generated, trace

    @torch.no_grad()
    def run(
        self,
        prompt: Prompt,
        plan: Plan,
        generated: Sequence[int] = (),
        kept: Sequence[list[int]] | None = None,
    ) -> Trace:
        """One pass; `kept` fixes the sets that an earlier pass over the prompt chose."""
        assert kept is not None or not generated, "sets are chosen from the prompt alone"
        if kept is None and any(stage.row != "readout" for stage in plan.stages):
            # The forced answer: nothing before [SEG] sees it.
            kept = RequestPass(self, prompt, plan, [*prompt.ids, SEG_TOKEN], None).trace.kept
        run = RequestPass(self, prompt, plan, [*prompt.ids, *generated], kept)
        return run.trace

    def query(self, state: Tensor) -> Tensor:
        """The mask query of a final state."""
        first, second = "model.text_hidden_fcs.0.0", "model.text_hidden_fcs.0.2"
        inner = state @ self._weight(f"{first}.weight").T + self._weight(f"{first}.bias")
        outer = inner.relu() @ self._weight(f"{second}.weight").T
        return outer + self._weight(f"{second}.bias")

    def _weight(self, name: str) -> Tensor:
        return self.weights[name]

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings; the image's placeholder, which has none, gives zeros."""
        table = self._weight("model.embed_tokens.weight")
        rows = [table[one] if one < len(table) else torch.zeros(table.shape[1]) for one in ids]
        return torch.stack(rows)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """RMS norm."""
        scale = (x.square().mean(1, keepdim=True) + self.config["rms_norm_eps"]).rsqrt()
        return x * scale * self._weight(name)

    def layer(self, number: int, x: Tensor, positions: list[int]) -> tuple[Tensor, Heads]:
        """One decoder layer over rows [T, D] at their positions; also its queries and keys."""
        name = f"model.layers.{number}"
        normed = self.norm(f"{name}.input_layernorm.weight", x)
        query = self._heads(normed, f"{name}.self_attn.q_proj.weight", self.heads)
        key = self._heads(normed, f"{name}.self_attn.k_proj.weight", self.kv_heads)
        value = self._heads(normed, f"{name}.self_attn.v_proj.weight", self.kv_heads)
        heads = Heads(query, key, self.rotate(query, positions), self.rotate(key, positions))
        outputs = []
        causal = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        for head in range(self.heads):
            shared = head * self.kv_heads // self.heads
            logits = heads.turned_query[head] @ heads.turned_key[shared].T / self.width**0.5
            outputs.append(logits.masked_fill(~causal, -torch.inf).softmax(1) @ value[shared])
        x = x + torch.cat(outputs, 1) @ self._weight(f"{name}.self_attn.o_proj.weight").T
        normed = self.norm(f"{name}.post_attention_layernorm.weight", x)
        gate = torch.nn.functional.silu(normed @ self._weight(f"{name}.mlp.gate_proj.weight").T)
        up = normed @ self._weight(f"{name}.mlp.up_proj.weight").T
        return x + (gate * up) @ self._weight(f"{name}.mlp.down_proj.weight").T, heads

    def _heads(self, x: Tensor, name: str, heads: int) -> Tensor:
        return (x @ self._weight(name).T).view(len(x), heads, self.width).transpose(0, 1)

    def rotate(self, x: Tensor, positions: list[int]) -> Tensor:
        """Rotary embedding of [heads, T, width], halves against each other."""
        half = self.width // 2
        base = self.config.get("rope_theta", 10000.0)
        speed = base ** (-torch.arange(half, dtype=torch.float32) / half)
        angle = torch.tensor(positions, dtype=torch.float32)[:, None] * speed
        first, second = x[..., :half], x[..., half:]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _weights(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    if file.exists():
        tensors = load_file(file)
    else:
        tensors = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return {
        name: tensor.float()
        for name, tensor in tensors.items()
        if not name.startswith("model.visual_model.")
    }
