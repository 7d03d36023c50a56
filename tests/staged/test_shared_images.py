"""Questions about one image that begin in one step compute it once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.staged.compare import TOLERANCE, differences, replay, same_bits
from tests.staged.engine import Engine, Noted, running
from tests.staged.plans import Plan, Prompt
from tests.staged.policies import CASES, CSP, Case
from tests.staged.prompts import IMAGE_TOKEN, image_prompt, picture, text_prompt
from tests.staged.reference import Model
from tests.staged.selection import TOKENS
from vllm_csp.tokens import policy

BEFORE = 9
# By name, how many stages the image alone chooses the tokens of.
SHARED = {
    "csp-65": 2,
    "csp-cls": 2,
    "csp-embedding": 2,
    "csp-offset": 2,
    "csp-by-both": 2,
    "csp-random": 0,
    "fastv": 1,
    "prumerge+-merging": 1,
    "resprune": 0,
    "custom": 1,
}


def question(number: int, length: int, shown: int = 0, before: int = BEFORE) -> Prompt:
    """A question about a picture, with the same words before it as all others."""
    words = text_prompt(500, before).ids
    asked = text_prompt(600 + number, length).ids
    return Prompt((*words, *[IMAGE_TOKEN] * TOKENS, *asked), before, picture(shown))


def assert_as_alone(
    noted: Noted, model: Model, plan: Plan, prompt: Prompt, shared_stages: int = 0
) -> None:
    """Tokens, kept tokens and states are the reference's; what is shared was not computed."""
    trace = replay(model, prompt, plan, noted.tokens)
    stages = len(plan.stages)
    begins = [BEFORE + TOKENS if stage < shared_stages else 0 for stage in range(stages)]
    found = differences(noted, trace, begins)
    assert max(found.values()) <= TOLERANCE, found
    assert noted.kept == [trace.kept]
    assert noted.tokens == model.greedy(prompt, plan, len(noted.tokens))[0]


def first_step(engine: Engine, names: list[str]) -> list[Noted]:
    """All that was noted of some requests, which must have begun together."""
    assert set(names) <= set(engine.steps[0].fed), "all in one prefill"
    return [engine.noted[name] for name in names]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in SHARED], ids=lambda case: case.name
)
def test_several_questions_about_one_image(checkpoint: Path, model: Model, case: Case) -> None:
    """Every policy: all but the batch's first share what the image alone decides."""
    prompts = [
        question(1, 11),
        text_prompt(2, 30),
        question(3, 25),
        question(4, 6, shown=1),
        question(5, 1),
    ]
    with running(checkpoint, case.csp, case.first_layers) as engine:
        names = [engine.add(prompt)[0] for prompt in prompts]
        engine.finish()
        noted = first_step(engine, names)
        order = [names.index(name) for name in engine.steps[0].order]
        _, *sharing = [number for number in order if prompts[number].image == prompts[0].image]
        assert len(sharing) == 2
        for number in sharing:
            assert_as_alone(noted[number], model, case.plan, prompts[number], SHARED[case.name])
        for number in {0, 2, 3, 4} - set(sharing):
            assert_as_alone(noted[number], model, case.plan, prompts[number])
        assert engine.leftovers() == {"requests": 0, "dropped": 0, "tables": 0}
        assert engine.model.runner is not None
        assert engine.model.runner.shared_images == (2 if SHARED[case.name] else 0)


def test_it_can_be_switched_off_and_answers_are_the_same(checkpoint: Path, model: Model) -> None:
    prompts = [question(number, 4 + number) for number in range(5)]
    answers = {}
    for share in (True, False):
        csp = {**CSP.csp, "share_images": share}
        with running(checkpoint, csp, CSP.first_layers) as engine:
            names = [engine.add(prompt)[0] for prompt in prompts]
            engine.finish()
            answers[share] = first_step(engine, names)
    for together, apart, prompt in zip(answers[True], answers[False], prompts, strict=True):
        assert (together.tokens, together.kept) == (apart.tokens, apart.kept)
        assert_as_alone(apart, model, CSP.plan, prompt)
    assert len(answers[True][4].entering[0][0][0]) < len(answers[False][4].entering[0][0][0])


@pytest.mark.parametrize(
    "other",
    [question(2, 5, shown=1), question(2, 5, before=8), image_prompt(2, BEFORE, 5)],
    ids=["another image", "fewer words before it", "other words before it"],
)
def test_only_equal_beginnings_are_shared(checkpoint: Path, model: Model, other: Prompt) -> None:
    prompts = [question(1, 7), other]
    with running(checkpoint, CSP.csp, CSP.first_layers) as engine:
        names = [engine.add(prompt)[0] for prompt in prompts]
        engine.finish()
        for noted, prompt in zip(first_step(engine, names), prompts, strict=True):
            assert_as_alone(noted, model, CSP.plan, prompt)


def test_requests_with_their_own_choice_share_among_themselves(
    checkpoint: Path, model: Model
) -> None:
    own = policy("csp", 8, cluster="uniform").model_dump_json()
    uniform = next(case.plan for case in CASES if case.name == "csp-uniform")
    ways: list[tuple[str | None, Plan, int]] = [
        (None, CSP.plan, 0),
        (own, uniform, 0),
        (None, CSP.plan, 2),
        (own, uniform, 2),
    ]
    prompts = [question(number, 5 + number) for number in range(len(ways))]
    with running(checkpoint, CSP.csp, CSP.first_layers) as engine:
        names = [
            engine.add(prompt, schedule=way[0])[0]
            for prompt, way in zip(prompts, ways, strict=True)
        ]
        engine.finish()
        for noted, prompt, (_, plan, shared) in zip(
            first_step(engine, names), prompts, ways, strict=True
        ):
            assert_as_alone(noted, model, plan, prompt, shared)


def test_a_preempted_request_shares_again_or_not(checkpoint: Path, model: Model) -> None:
    """Whoever is computed anew, with whomever: the tokens are those of the request alone."""
    prompts = [question(number, 45 - number) for number in range(6)]
    options: dict[str, Any] = {"num_gpu_blocks_override": 46, "max_model_len": 352}
    with running(checkpoint, CSP.csp, CSP.first_layers, **options) as engine:
        names = [engine.add(prompt, max_tokens=40)[0] for prompt in prompts]
        engine.finish()
        assert engine.preempted
        for name, prompt in zip(names, prompts, strict=True):
            assert engine.noted[name].tokens == model.greedy(prompt, CSP.plan, 40)[0]


def test_the_first_may_leave_before_the_others_are_done(checkpoint: Path, model: Model) -> None:
    prompts = [question(number, 8 + number) for number in range(3)]
    with running(checkpoint, CSP.csp, CSP.first_layers) as engine:
        names = [engine.add(prompt)[0] for prompt in prompts]
        engine.step()
        engine.step()
        engine.abort(names[:1])
        engine.finish()
        for name, prompt in zip(names[1:], prompts[1:], strict=True):
            assert_as_alone(engine.noted[name], model, CSP.plan, prompt, 2)


def test_outputs_of_one_request_share_its_image(checkpoint: Path, model: Model) -> None:
    prompt = question(7, 12)
    with running(checkpoint, CSP.csp, CSP.first_layers) as engine:
        names = engine.add(prompt, n=3)
        engine.finish()
        shares = []
        for name in names:
            noted = engine.noted[name]
            trace = replay(model, prompt, CSP.plan, noted.tokens)
            begin = noted.entering[0][0][0][0]
            found = differences(noted, trace, [begin, begin, 0])
            assert max(found.values()) <= TOLERANCE, found
            shares.append(begin == BEFORE + TOKENS)
        assert sorted(shares) == [False, True, True]


def test_alone_nothing_is_different_to_the_bit(checkpoint: Path) -> None:
    noted = []
    for share in (True, False):
        with running(checkpoint, {**CSP.csp, "share_images": share}, CSP.first_layers) as engine:
            noted += engine.generate([question(1, 11), question(2, 11, shown=1)])
    assert same_bits(noted[0], noted[2]) and same_bits(noted[1], noted[3])
