"""LISA's language model in plain PyTorch, a set of image tokens per layer: no vLLM, no KV cache.

Every step recomputes the whole sequence, one request at a time, in fp32. A stage's rows are simply
the rows it keeps; positions are the original ones.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionModel

from tests.staged import selection
from tests.staged.selection import TOKENS
from vllm_csp.images import clip_crop

SEG_TOKEN = 32003
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Stage:
    """Layers first..last - 1 on `count` image tokens chosen by `rule`.

    Options of the rules "attention" and "feather": the row that scores ("readout", the last one of
    the prompt; "seg", a [SEG] fed behind it; "mean", both), softmax ("all_keys", "image_keys"),
    rope, and how many layers before the stage are averaged.
    """

    first: int
    last: int
    rule: str
    count: int
    softmax: str = "all_keys"
    rope: bool = True
    layers: int = 1
    merge: bool = False
    row: str = "readout"

    @property
    def by_score(self) -> bool:
        """Whether a row of the language model chooses."""
        return self.rule in ("attention", "feather") and self.count < TOKENS


@dataclass(frozen=True)
class Plan:
    """What goes through which layers; scatter and representative as in the policies."""

    stages: tuple[Stage, ...]
    scatter: str = "copy"
    representative: str = "grid"

    @property
    def counts(self) -> list[int]:
        """Image tokens of each stage."""
        return [stage.count for stage in self.stages]


@dataclass(frozen=True)
class Prompt:
    """Token ids with the image's rows in place; `image_start` is None for text only.

    A seed that is not given is the CRC-32 of the ids as 64-bit little-endian words.
    """

    ids: tuple[int, ...]
    image_start: int | None = None
    image: Image.Image | None = field(default=None, compare=False)
    given_seed: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seed(self) -> int:
        """What random choices depend on."""
        if self.given_seed is not None:
            return self.given_seed
        return crc32(struct.pack(f"<{len(self.ids)}q", *self.ids))


@dataclass
class Trace:
    """A pass over a sequence.

    kept: image tokens of each stage. entering: per stage, positions of its rows and the residual
    stream [rows, D] before its first layer. final: states after the last norm of the last stage's
    rows. logits: of the last row. scores: what stages were chosen by (token -> score), if here.
    """

    kept: list[list[int]] = field(default_factory=list)
    entering: list[tuple[list[int], Tensor]] = field(default_factory=list)
    final: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    scores: dict[int, dict[int, float]] = field(default_factory=dict)


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
            kept = _Pass(self, prompt, plan, [*prompt.ids, SEG_TOKEN], None).trace.kept
        run = _Pass(self, prompt, plan, [*prompt.ids, *generated], kept)
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

    def layer(self, number: int, x: Tensor, positions: list[int]) -> tuple[Tensor, _Heads]:
        """One decoder layer over rows [T, D] at their positions; also its queries and keys."""
        name = f"model.layers.{number}"
        normed = self.norm(f"{name}.input_layernorm.weight", x)
        query = self._heads(normed, f"{name}.self_attn.q_proj.weight", self.heads)
        key = self._heads(normed, f"{name}.self_attn.k_proj.weight", self.kv_heads)
        value = self._heads(normed, f"{name}.self_attn.v_proj.weight", self.kv_heads)
        heads = _Heads(query, key, self.rotate(query, positions), self.rotate(key, positions))
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


@dataclass(frozen=True)
class _Heads:
    """Queries and keys of a layer, [heads, T, width], before and after the rotary embedding."""

    query: Tensor
    key: Tensor
    turned_query: Tensor
    turned_key: Tensor


class _Pass:
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

    def _score(self, index: int, rows: list[int], heads: _Heads) -> dict[int, float]:
        """Mean over heads and rows of the attention to the image tokens of a stage."""
        stage, end = self.plan.stages[index + 1], len(self.prompt)
        behind = {"readout": [end - 1], "seg": [end], "mean": [end - 1, end]}[stage.row]
        columns = [rows.index(self._image_row(token)) for token in self.trace.kept[index]]
        each = [self._attention(stage, heads, rows.index(row), columns) for row in behind]
        mean = sum(each, torch.zeros(len(columns))) / len(each)
        return dict(zip(self.trace.kept[index], mean.tolist(), strict=True))

    def _attention(self, stage: Stage, heads: _Heads, last: int, columns: list[int]) -> Tensor:
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
