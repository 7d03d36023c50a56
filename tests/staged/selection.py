"""How each selector chooses image tokens, in plain Python: one image, one token at a time.

Written from the documentation of the methods, not from `vllm_csp.tokens`. Equal scores go to the
lower index, and every choice is returned in ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

SIDE = 16
TOKENS = SIDE * SIDE


def best(scores: Sequence[float], count: int, among: Collection[int] | None = None) -> list[int]:
    """The `count` tokens of the highest scores."""
    candidates = range(len(scores)) if among is None else among
    return sorted(sorted(candidates, key=lambda token: (-scores[token], token))[:count])


def grid(count: int) -> list[int]:
    """Lines, and tokens in each line, at the centres of equal intervals."""
    lines = min(max(round(math.sqrt(count)), math.ceil(count / SIDE)), SIDE)
    kept = []
    for line in range(lines):
        row = math.floor((line + 0.5) * SIDE / lines)
        on_line = (line + 1) * count // lines - line * count // lines
        kept += [
            row * SIDE + math.floor((place + 0.5) * SIDE / on_line) for place in range(on_line)
        ]
    return kept


def uniform(count: int) -> list[int]:
    """The paper's formula: every floor(N / count)-th token from the first."""
    return [index * (TOKENS // count) for index in range(count)]


def random(count: int, seed: int) -> list[int]:
    """The tokens of the largest 32-bit keys, each a hash of token and seed."""
    mask = 0xFFFFFFFF

    def mix(word: int) -> int:
        for _ in range(2):
            word = ((word ^ (word >> 16)) * 0x45D9F3B) & mask
        return word ^ (word >> 16)

    mixed_seed = mix((seed >> 32 & mask) ^ mix(seed & mask))
    keys = [mix(mix(token * 0x9E3779B9 & mask) ^ mixed_seed) for token in range(1, TOKENS + 1)]
    return best(keys, count)


def feather(scores: Sequence[float], count: int, stride: int) -> list[int]:
    """Every `stride`-th token of every `stride`-th row, and the best of the others."""
    fixed = [r * SIDE + c for r in range(0, SIDE, stride) for c in range(0, SIDE, stride)]
    others = [token for token in range(TOKENS) if token not in fixed]
    return sorted(fixed + best(scores, count - len(fixed), others))


def prumerge_plus(attention: Sequence[float], count: int) -> list[int]:
    """A quarter by attention, then an even stride over the sequence, then the next best."""
    kept = best(attention, math.ceil(count / 4))
    room = count - len(kept)
    if room:
        stride = math.ceil(TOKENS / room)
        kept += [t for t in range(0, TOKENS, stride) if t not in kept][:room]
    left = [token for token in range(TOKENS) if token not in kept]
    return sorted(kept + best(attention, count - len(kept), left))


def resprune(features: Tensor, words: Tensor, count: int, alpha: float = 2.0) -> list[int]:
    """Greedily the token with the largest relevance ** alpha * |residual| ** 2.

    features: [N, D]; words: [T, D]. Relevance is the best cosine with a word, moved to 0..1;
    the residual is what the tokens already taken do not span. In double precision.
    """
    residuals = features.double().clone()
    relevance = []
    for token in features.double():
        cosines = [float(token @ word / (token.norm() * word.norm())) for word in words.double()]
        relevance.append((1 + max(cosines)) / 2)
    kept: list[int] = []
    for _ in range(count):
        gains = [
            -1.0 if token in kept else relevance[token] ** alpha * float(residual @ residual)
            for token, residual in enumerate(residuals)
        ]
        pick = max(range(len(gains)), key=lambda token: (gains[token], -token))
        kept.append(pick)
        direction = residuals[pick] / residuals[pick].norm()
        residuals = residuals - torch.outer(residuals @ direction, direction)
    return sorted(kept)


def superpixels(colours: Tensor) -> list[int]:
    """Which of 16 superpixels each token belongs to; colours: [224, 224, 3] in 0..1.

    Five rounds of k-means over mean colour and place, from every fourth token.
    """
    patch = len(colours) // SIDE
    points = []
    for token in range(TOKENS):
        top, left = token // SIDE * patch, token % SIDE * patch
        mean = colours[top : top + patch, left : left + patch].reshape(-1, 3).mean(0)
        place = torch.tensor([token // SIDE, token % SIDE]) / (SIDE - 1)
        points.append(torch.cat((mean, place)))
    starts = [int((line + 0.5) * SIDE / 4) for line in range(4)]
    centres = [points[row * SIDE + column] for row in starts for column in starts]
    labels: list[int] = []
    for _ in range(5):
        labels = [
            min(range(len(centres)), key=lambda k: (float(torch.dist(point, centres[k])), k))
            for point in points
        ]
        for k in range(len(centres)):
            members = [point for point, label in zip(points, labels, strict=True) if label == k]
            if members:
                centres[k] = torch.stack(members).mean(0)
    return labels


def seg_first(labels: Sequence[int], count: int) -> list[int]:
    """A quota of tokens for every instance, by area; samples are even along the Z-order curve.

    Quotas are at least 1: where they are too many, later samples give way. What they leave over is
    spread evenly over the tokens not taken.
    """

    def place_on_curve(token: int) -> int:
        row, column = token // SIDE, token % SIDE
        return sum((column >> b & 1) << 2 * b | (row >> b & 1) << 2 * b + 1 for b in range(5))

    def even(tokens: list[int], quota: int) -> list[int]:
        return [tokens[math.ceil((k + 1) * len(tokens) / quota) - 1] for k in range(quota)]

    curve = sorted(range(TOKENS), key=place_on_curve)
    taken: list[tuple[int, int]] = []
    for label in set(labels):
        members = [token for token in curve if labels[token] == label]
        quota = min(max(1, count * len(members) // TOKENS), len(members))
        taken += enumerate(even(members, quota))
    taken.sort(key=lambda sample: (sample[0], curve.index(sample[1])))
    kept = [token for _, token in taken[:count]]
    free = [token for token in curve if token not in kept]
    return sorted(kept + even(free, count - len(kept)))


def merged(
    features: Tensor, attention: Tensor, keys: Tensor, kept: Sequence[int], neighbours: int = 32
) -> Tensor:
    """x_i + sum of a_j x_j over the tokens j of the most similar keys: [len(kept), D]."""
    rows = []
    for token in kept:
        others = [other for other in range(len(keys)) if other != token]
        cosine = {j: float(torch.cosine_similarity(keys[token], keys[j], dim=0)) for j in others}
        near = sorted(others, key=lambda j: (-cosine[j], j))[:neighbours]
        rows.append(features[token] + sum(attention[j] * features[j] for j in near))
    return torch.stack(rows)


def nearest(token: int, kept: Sequence[int], rule: str) -> int:
    """The kept token that stands for another one: on the grid, or along the sequence."""
    if rule == "index":
        return min(kept, key=lambda other: (abs(other - token), other))
    return min(
        kept,
        key=lambda other: (
            (other // SIDE - token // SIDE) ** 2 + (other % SIDE - token % SIDE) ** 2,
            other,
        ),
    )
