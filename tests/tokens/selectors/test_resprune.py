"""ResPrune equals projection by definition, and CDPruner for alpha 2."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vllm_csp.tokens.selectors import SelectionInputs, selector
from vllm_csp.tokens.selectors.resprune import residual_pivots, text_relevance


def naive_pivots(features: np.ndarray, weights: np.ndarray, budget: int) -> list[int]:
    """argmax of weight times squared distance to the span, by least squares."""
    kept: list[int] = []
    for _ in range(budget):
        gains = []
        for i, vector in enumerate(features):
            rest = vector
            if kept:
                basis = features[kept].T
                rest = vector - basis @ np.linalg.lstsq(basis, vector, rcond=None)[0]
            gains.append(-1.0 if i in kept else weights[i] * (rest @ rest))
        kept.append(int(np.argmax(gains)))
    return sorted(kept)


@pytest.mark.parametrize(("total", "width", "budget"), [(12, 16, 5), (20, 8, 8), (9, 30, 8)])
def test_pivots_equal_the_projection(total: int, width: int, budget: int) -> None:
    generator = torch.Generator().manual_seed(total)
    features = torch.randn(3, total, width, generator=generator)
    weights = torch.rand(3, total, generator=generator) + 0.1
    found = residual_pivots(features, weights, budget)
    for b in range(3):
        exact = naive_pivots(features[b].double().numpy(), weights[b].double().numpy(), budget)
        assert found[b].tolist() == exact


def test_an_exhausted_span_is_filled_by_lower_index() -> None:
    features = torch.zeros(1, 6, 4)
    features[0, 3] = torch.tensor([2.0, 0, 0, 0])
    features[0, 5] = torch.tensor([0, 1.0, 0, 0])
    weights = torch.ones(1, 6)
    assert residual_pivots(features, weights, 4).tolist() == [[0, 1, 3, 5]]
    doubled = features[:, [3, 3, 3, 5, 5, 5]]
    assert residual_pivots(doubled, weights, 3).tolist() == [[0, 1, 3]]


def naive_relevance(features, words, pooling: str, negatives: str) -> list[float]:
    out = []
    for vector in features:
        cosine = [float(vector @ w / np.linalg.norm(vector) / np.linalg.norm(w)) for w in words]
        if not cosine:
            out.append(1.0)
            continue
        value = max(cosine) if pooling == "max" else sum(cosine) / len(cosine)
        out.append((1 + value) / 2 if negatives == "shift" else max(value, 1e-6))
    return out


@pytest.mark.parametrize("negatives", ["shift", "clamp"])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_relevance_equals_the_loop_and_ignores_padding(pooling, negatives) -> None:
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(3, 9, 6, generator=generator)
    words = torch.randn(3, 4, 6, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()
    found = text_relevance(features, words, mask, pooling, negatives)
    for b in range(3):
        expected = naive_relevance(
            features[b].numpy(), words[b][mask[b]].numpy(), pooling, negatives
        )
        torch.testing.assert_close(found[b], torch.tensor(expected), atol=1e-6, rtol=1e-5)


def greedy_map(kernel: np.ndarray, budget: int) -> list[int]:
    """Greedy maximum of the determinant of the chosen minor."""
    kept: list[int] = []
    for _ in range(budget):
        rest = [i for i in range(len(kernel)) if i not in kept]
        kept.append(max(rest, key=lambda i: np.linalg.det(kernel[np.ix_([*kept, i], [*kept, i])])))
    return sorted(kept)


def test_alpha_2_on_normalised_features_is_cdpruner() -> None:
    generator = torch.Generator().manual_seed(11)
    features = torch.randn(4, 14, 20, generator=generator)
    text = torch.randn(4, 3, 20, generator=generator)
    mask = torch.ones(4, 3, dtype=torch.bool)
    given = SelectionInputs(
        4, (2, 7), image_features=features, text_embeddings=text, text_mask=mask
    )
    kept = selector("resprune", alpha=2, normalise=True).select(given, 6)
    for b in range(4):
        unit = features[b].double().numpy()
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        relevance = np.array(naive_relevance(features[b].numpy(), text[b].numpy(), "max", "shift"))
        kernel = relevance[:, None] * (unit @ unit.T) * relevance
        assert kept[b].tolist() == greedy_map(kernel, 6)


def test_alpha_0_ignores_the_question() -> None:
    generator = torch.Generator().manual_seed(12)
    features = torch.randn(1, 10, 8, generator=generator)
    given = SelectionInputs(1, (2, 5), image_features=features)
    kept = selector("resprune", alpha=0).select(given, 4)[0].tolist()
    assert kept == naive_pivots(features[0].double().numpy(), np.ones(10), 4)


def test_relevance_decides_between_equal_features() -> None:
    features = torch.eye(4)[None].repeat(1, 1, 1)
    given = SelectionInputs(
        1,
        (2, 2),
        image_features=features,
        text_embeddings=torch.tensor([[[0, 0, 1.0, 0.5]]]),
        text_mask=torch.ones(1, 1, dtype=torch.bool),
    )
    assert selector("resprune").select(given, 1).tolist() == [[2]]
    assert selector("resprune").select(given, 2).tolist() == [[2, 3]]
