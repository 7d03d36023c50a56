"""Every policy: the engine computes what plain PyTorch computes with the same sets of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch

from benchmarks.overlap import iou
from tests.staged.compare import TOLERANCE, differences
from tests.staged.engine import Engine, Noted, running
from tests.staged.plans import Plan, Prompt, Stage, Trace
from tests.staged.policies import CASES, CSP, Case
from tests.staged.prompts import mixed_prompts, picture
from tests.staged.reference import Model
from vllm_csp.images import image_key
from vllm_csp.masks import encode_mask, unpack_mask
from vllm_csp.serving.segmenter import Question

STEPS = 16


@dataclass(frozen=True)
class Run:
    """A mixed batch on the engine of one policy."""

    case: Case
    engine: Engine
    model: Model
    prompts: list[Prompt]
    noted: list[Noted]

    @cached_property
    def references(self) -> list[tuple[list[int], Trace]]:
        """Greedy tokens and the last pass of the reference, per prompt."""
        return [self.model.greedy(one, self.case.plan, STEPS) for one in self.prompts]


@pytest.fixture(scope="module", params=CASES, ids=str)
def run(request: pytest.FixtureRequest, checkpoint: Path, model: Model) -> Iterator[Run]:
    """Each policy in turn, on an engine of its own."""
    case: Case = request.param
    with running(checkpoint, case.csp, case.first_layers) as engine:
        prompts = mixed_prompts()
        yield Run(case, engine, model, prompts, engine.generate(prompts, STEPS))


def test_greedy_tokens(run: Run) -> None:
    for noted, (tokens, _) in zip(run.noted, run.references, strict=True):
        assert noted.tokens == tokens


def test_kept_tokens(run: Run) -> None:
    for prompt, noted, (_, trace) in zip(run.prompts, run.noted, run.references, strict=True):
        dense = run.engine.model.runner is None
        assert noted.kept == ([] if dense or prompt.image is None else [trace.kept])


def test_states_at_every_stage_boundary(run: Run) -> None:
    """Of prompt and generated rows; that exactly the kept rows were run is checked on the way."""
    for noted, (_, trace) in zip(run.noted, run.references, strict=True):
        found = differences(noted, trace)
        assert max(found.values()) <= TOLERANCE, found


def test_masks(run: Run) -> None:
    """The engine's mask of an image is that of the reference's read-out row."""
    image = picture(0)
    question = Question("Where is the red patch?", image, mode="force")
    [answer] = run.engine.segmenter.ask([question])
    ids = answer.prompt_token_ids
    prompt = Prompt(tuple(ids), ids.index(max(ids)), image)
    state = run.model.run(prompt, run.case.plan).final[-1]
    embedding = run.engine.model.masks.embeddings.peek(image_key(image))
    assert embedding is not None
    [found] = run.engine.model.masks.decode([embedding], [run.model.query(state)[None]])
    reference = encode_mask(unpack_mask(found.masks[0], found.size), 0.0, 0, "rle")
    assert iou(answer.masks[0], reference) >= 0.999


def test_submission_order_and_company_change_nothing(run: Run) -> None:
    """Backwards, and arriving one per step while earlier ones decode."""
    expected = [noted.tokens for noted in run.noted]
    assert [noted.tokens for noted in run.engine.generate(run.prompts[::-1], STEPS)] == (
        expected[::-1]
    )
    names = []
    for prompt in run.prompts:
        names += run.engine.add(prompt, STEPS)
        run.engine.step()
    run.engine.finish()
    for name, (tokens, trace) in zip(names, run.references, strict=True):
        assert run.engine.noted[name].tokens == tokens
        assert max(differences(run.engine.noted[name], trace).values()) <= TOLERANCE


def test_nothing_is_held_afterwards(run: Run) -> None:
    assert run.engine.leftovers() == {"requests": 0, "dropped": 0, "tables": 0}
    pool = run.engine.pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1


WRONG = {
    "other-tokens": Plan((Stage(0, 2, "uniform", 64), *CSP.plan.stages[1:])),
    "other-boundary": Plan(
        (Stage(0, 3, "grid", 64), Stage(3, 4, "all", 256), Stage(4, 8, "attention", 16))
    ),
    "other-scatter": Plan(CSP.plan.stages, scatter="offset"),
    "unpruned": Plan((*CSP.plan.stages[:2], Stage(4, 8, "all", 256))),
    "seg-score": Plan((*CSP.plan.stages[:2], Stage(4, 8, "attention", 16, row="seg"))),
    "rope-free-score": Plan((*CSP.plan.stages[:2], Stage(4, 8, "attention", 16, rope=False))),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_comparison_would_notice(model: Model, wrong: Plan) -> None:
    """What a wrong set does to the final state of the last prompt row: far above the tolerance."""
    prompt = mixed_prompts()[0]
    right, other = (model.run(prompt, plan).final[-1] for plan in (CSP.plan, wrong))
    assert torch.dist(right, other, p=float("inf")) > 100 * TOLERANCE
