"""What a schedule costs: floating-point operations, KV slots, blocks and groups, all exact."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_csp.tokens.schedule import Schedule

MAX_CHEAP_KV_GROUPS = 6


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder layer.

    ffn_matrices: 3 for gated feed-forward (Llama), 2 for the plain one that FastV's formula counts.
    """

    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_matrices: int = 3


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, 2 per multiply-add."""

    linear: int
    attention: int

    @property
    def total(self) -> int:
        """Linear and attention part."""
        return self.linear + self.attention


def layer_flops(shape: DecoderShape, tokens: int) -> Flops:
    """Operations of one decoder layer over ``tokens`` rows.

    Per row: query and output projections, key and value projections, feed-forward; attention over
    the full square (causality not halved). With num_kv_heads = num_heads, head_dim * num_heads = d
    and 2 feed-forward matrices this is twice FastV's 4nd^2 + 2n^2d + 2ndm multiply-adds
    (ECCV 2024). Embedding, head, norms and the pruning score (one row) are left out.
    """
    query = shape.num_heads * shape.head_dim
    key = shape.num_kv_heads * shape.head_dim
    per_row = shape.hidden_size * (2 * query + 2 * key + shape.ffn_matrices * shape.ffn_size)
    return Flops(linear=2 * tokens * per_row, attention=4 * tokens * tokens * query)


def prefill_flops(schedule: Schedule, shape: DecoderShape, text_tokens: int) -> Flops:
    """Operations of the decoder over a prompt of one image and ``text_tokens`` other rows."""
    linear = attention = 0
    for stage in schedule.stages:
        layer = layer_flops(shape, stage.budget + text_tokens)
        linear += stage.num_layers * layer.linear
        attention += stage.num_layers * layer.attention
    return Flops(linear, attention)


def dense_flops(schedule: Schedule, shape: DecoderShape, text_tokens: int) -> Flops:
    """``prefill_flops`` if every layer ran on every image token."""
    layer = layer_flops(shape, schedule.num_image_tokens + text_tokens)
    return Flops(schedule.num_layers * layer.linear, schedule.num_layers * layer.attention)


def flops_ratio(schedule: Schedule, shape: DecoderShape, text_tokens: int) -> float:
    """Prefill operations relative to dense; 1.0 for dense."""
    dense = dense_flops(schedule, shape, text_tokens).total
    return prefill_flops(schedule, shape, text_tokens).total / dense


def kv_group_size(stage_lengths: tuple[int, ...]) -> int:
    """Layers per KV group, as vLLM 0.32 chooses it.

    The shortest stage's length, unless the longest is below 1.5 times that, then the longest.
    Source: vllm.v1.core.kv_cache_utils._get_kv_cache_groups_uniform_page_size.
    """
    shortest, longest = min(stage_lengths), max(stage_lengths)
    return longest if longest < shortest * 1.5 else shortest


@dataclass(frozen=True)
class KVGroup:
    """Layers that share a block table. ``layers`` may be fewer than the group size (padding)."""

    stage: int
    layers: tuple[int, ...]


def kv_groups(schedule: Schedule) -> tuple[KVGroup, ...]:
    """The KV groups vLLM makes of the schedule, in its order.

    Every stage is split into ceil(length / group size) groups that take its layers in turns.
    """
    size = kv_group_size(tuple(stage.num_layers for stage in schedule.stages))
    groups = []
    for index, stage in enumerate(schedule.stages):
        layers = tuple(range(stage.first_layer, stage.last_layer))
        count = -(-len(layers) // size)
        groups += [KVGroup(index, layers[turn::count]) for turn in range(count)]
    return tuple(groups)


def cost_of_kv_groups(schedule: Schedule) -> str | None:
    """What to tell who chose a schedule of more than 6 KV groups; None for fewer."""
    count = len(kv_groups(schedule))
    if count <= MAX_CHEAP_KV_GROUPS:
        return None
    lengths = "/".join(str(stage.num_layers) for stage in schedule.stages)
    return (
        f"stages of {lengths} layers make {count} KV-cache groups, each of which costs work every "
        "step; lengths that are multiples of the shortest one, and a longer shortest one, make "
        "fewer"
    )


def kv_slots(schedule: Schedule, num_tokens: int) -> tuple[int, ...]:
    """KV slots per stage of a request with ``num_tokens`` tokens, its whole image included."""
    return tuple(num_tokens - schedule.num_image_tokens + kept for kept in schedule.kept_per_stage)


def kv_blocks(schedule: Schedule, num_tokens: int, block_size: int) -> tuple[int, ...]:
    """KV blocks per KV group of a request with ``num_tokens`` tokens."""
    slots = kv_slots(schedule, num_tokens)
    return tuple(-(-slots[group.stage] // block_size) for group in kv_groups(schedule))


def kv_ratio(schedule: Schedule, num_tokens: int, block_size: int) -> float:
    """KV memory a request holds relative to dense, padding layers included."""
    size = kv_group_size(tuple(stage.num_layers for stage in schedule.stages))
    dense = -(-num_tokens // block_size) * schedule.num_layers
    return sum(kv_blocks(schedule, num_tokens, block_size)) * size / dense
