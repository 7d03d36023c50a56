"""Preemption, aborts, several outputs per request, crowds: each request's states stay the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.staged.compare import TOLERANCE, differences, replay
from tests.staged.engine import Engine, running
from tests.staged.plans import Plan, Prompt, Stage
from tests.staged.policies import CASES, CSP, DENSE, Case
from tests.staged.prompts import image_prompt, mixed_prompts, text_prompt
from tests.staged.reference import Model
from vllm_csp.tokens import Schedule, policy
from vllm_csp.tokens.accounting import kv_blocks

RANDOM = next(case for case in CASES if case.name == "csp-random")
# One of each kind; all others are preempted in the slow tests.
PREEMPTED = {"csp-65", "csp-random", "csp-by-both", "fastv", "feather", "prumerge+", "resprune"}
BLOCK = 32
MAX_LEN = 352


def assert_undisturbed(
    engine: Engine, model: Model, plan: Plan, prompt: Prompt, name: str, greedy: bool = True
) -> None:
    """Rows of all steps, also those computed anew after a preemption, are the reference's."""
    noted = engine.noted[name]
    trace = replay(model, prompt, plan, noted.tokens)
    found = differences(noted, trace)
    assert max(found.values()) <= TOLERANCE, found
    assert all(kept == trace.kept for kept in noted.kept)
    if greedy:
        assert noted.tokens == model.greedy(prompt, plan, len(noted.tokens))[0]


def tiny_cache(csp: dict[str, Any]) -> int:
    """Blocks in which two or more of the prompts below can start and not all end."""
    knobs = {key: value for key, value in csp.items() if key != "policy"}
    schedule = policy(csp["policy"], 8, **knobs)
    # vLLM wants room for a request that leaves nothing out.
    least = len(kv_blocks(schedule, MAX_LEN, BLOCK)) * MAX_LEN // BLOCK
    start = end = 0
    for number in range(4):
        start += sum(kv_blocks(schedule, 306 - number, BLOCK))
        end += sum(kv_blocks(schedule, 306 - number + 39, BLOCK))
        if number and end > least:
            break
    assert start < end - 1
    # One too few for all of them, and one that is vLLM's own.
    return end - 1 + 1


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case.name in PREEMPTED else pytest.mark.slow, id=case.name)
        for case in CASES
    ],
)
def test_preemption(checkpoint: Path, model: Model, case: Case) -> None:
    """A cache for too few of five that grow: some start over with what they wrote."""
    prompts = [
        *(image_prompt(20 + i, before=10 + 4 * i, after=40 - 5 * i) for i in range(4)),
        text_prompt(30, length=70),
    ]
    blocks = tiny_cache(case.csp)
    tiny = {"num_gpu_blocks_override": blocks, "max_model_len": MAX_LEN}
    with running(checkpoint, case.csp, case.first_layers, **tiny) as engine:
        names = [engine.add(prompt, max_tokens=40)[0] for prompt in prompts]
        engine.finish()
        resumed = [
            name
            for name, prompt in zip(names, prompts, strict=True)
            if prompt.image is not None and name in engine.preempted
        ]
        assert resumed, "nothing with an image was preempted"
        for name in resumed:
            prefills = [len(rows) for rows, _ in engine.noted[name].entering[0] if rows[0] == 0]
            assert prefills[-1] > prefills[0], "generated tokens belong to the second prefill"
        for name, prompt in zip(names, prompts, strict=True):
            assert len(engine.noted[name].tokens) == 40
            assert_undisturbed(engine, model, case.plan, prompt, name, greedy=name in resumed)
        assert engine.leftovers() == {"requests": 0, "dropped": 0, "tables": 0}
        assert engine.pool.get_num_free_blocks() == blocks - 1


@pytest.mark.parametrize(("step", "order"), [(90, 1), (300, -1)])
def test_dense_in_chunks(
    checkpoint: Path, model: Model, step: int, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts split anywhere, also inside a picture, as on GPUs; stages take them whole."""
    monkeypatch.setattr("vllm_csp.models.hook.spare_cpu_generators", lambda vllm_config: None)
    prompts = mixed_prompts()[::order]
    options = {"max_num_batched_tokens": step}
    with running(checkpoint, DENSE.csp, DENSE.first_layers, **options) as engine:
        names = [engine.add(prompt)[0] for prompt in prompts]
        engine.finish()
        for name, prompt in zip(names, prompts, strict=True):
            assert_undisturbed(engine, model, DENSE.plan, prompt, name)
        split = [
            len(engine.noted[name].final[0][0]) < len(prompt)
            for name, prompt in zip(names, prompts, strict=True)
            if prompt.image is not None
        ]
        assert sum(split) >= 2, "nothing was split"


def test_aborts_midway(checkpoint: Path, model: Model) -> None:
    """Waiting, just prefilled and decoding requests go; others take their rows and blocks."""
    prompts = mixed_prompts()
    with running(checkpoint, CSP.csp, CSP.first_layers, max_num_seqs=4) as engine:
        names = [engine.add(prompt)[0] for prompt in prompts]
        engine.step()
        engine.abort([names[0], names[5]])  # just prefilled, still waiting
        for _ in range(4):
            engine.step()
        engine.abort([names[2]])  # decoding
        late = [image_prompt(40, before=9, after=25, shown=1), text_prompt(41, length=20)]
        late_names = [engine.add(prompt)[0] for prompt in late]
        engine.finish()
        kept = [1, 3, 4]
        for name, prompt in zip(
            [*(names[i] for i in kept), *late_names],
            [*(prompts[i] for i in kept), *late],
            strict=True,
        ):
            assert len(engine.noted[name].tokens) == 16
            assert_undisturbed(engine, model, CSP.plan, prompt, name)
        assert len(engine.noted[names[2]].tokens) < 16
        assert names[5] not in engine.noted
        assert engine.leftovers() == {"requests": 0, "dropped": 0, "tables": 0}
        assert engine.pool.get_num_free_blocks() == 511


def test_several_outputs_per_request(checkpoint: Path, model: Model) -> None:
    """n = 3, sampled: each output has its own slots, and the same kept tokens."""
    prompts = [image_prompt(50, before=14, after=22), text_prompt(51, length=30)]
    with running(checkpoint, RANDOM.csp, RANDOM.first_layers) as engine:
        names = [engine.add(prompt, n=3) for prompt in prompts]
        engine.finish()
        for prompt, children in zip(prompts, names, strict=True):
            assert len({tuple(engine.noted[name].tokens) for name in children}) == 3
            for name in children:
                assert_undisturbed(engine, model, RANDOM.plan, prompt, name, greedy=False)


@pytest.mark.parametrize(("batched_tokens", "max_len"), [(384, 384), (700, 384), (300, 1024)])
def test_crowds_of_pictures(
    checkpoint: Path, model: Model, batched_tokens: int, max_len: int
) -> None:
    """More new pictures than a step, its encoder budget or the encoder cache have room for."""
    prompts = [image_prompt(60 + i, before=3 + i, after=5, shown=10 + i) for i in range(7)]
    options = {"max_num_batched_tokens": batched_tokens, "max_model_len": max_len}
    with running(checkpoint, CSP.csp, CSP.first_layers, **options) as engine:
        engine.model.decodes_masks = False  # SAM is not asked for
        names = [engine.add(prompt)[0] for prompt in prompts]
        engine.finish()
        for name, prompt in zip(names, prompts, strict=True):
            assert_undisturbed(engine, model, CSP.plan, prompt, name)


def test_requests_choose_within_the_layout(checkpoint: Path, model: Model) -> None:
    """One batch, six ways to choose as many tokens in the same layers."""

    def plan(rule: str, scatter: str = "copy", **score: Any) -> Plan:
        stages = (
            Stage(0, 2, rule, 64),
            Stage(2, 4, "all", 256),
            Stage(4, 8, "attention", 16, **score),
        )
        return Plan(stages, scatter=scatter)

    ways: list[tuple[dict[str, Any] | None, Plan]] = [
        (None, plan("cls")),
        ({"cluster": "grid", "scatter": "offset"}, plan("grid", "offset")),
        ({"cluster": "random", "score": {"rope": False}}, plan("random", rope=False)),
        ({"cluster": "uniform", "score": {"layers": 2}}, plan("uniform", layers=2)),
        (
            {"cluster": "cls", "scatter": "embedding", "score": {"softmax": "image_keys"}},
            plan("cls", "embedding", softmax="image_keys"),
        ),
        ({"cluster": "grid", "score": {"row": "seg"}}, plan("grid", row="seg")),
    ]
    with running(checkpoint, {"policy": "csp", "cluster": "cls"}, CSP.first_layers) as engine:
        names, prompts = [], []
        for number, (knobs, _) in enumerate(ways):
            prompt = image_prompt(70 + number, before=5, after=12 + number, shown=number % 2)
            own = None if knobs is None else policy("csp", 8, **knobs).model_dump_json()
            names += engine.add(prompt, schedule=own)
            prompts.append(prompt)
        engine.finish()
        assert len(engine.steps[0].fed) == len(ways), "all in one prefill"
        for name, prompt, (_, meant) in zip(names, prompts, ways, strict=True):
            assert_undisturbed(engine, model, meant, prompt, name)
        assert len({json.dumps(engine.noted[name].kept) for name in names}) == len(ways)


def test_what_a_client_cannot_mean_is_left_aside(checkpoint: Path, model: Model) -> None:
    """A schedule of another layout is not followed; an image's tokens without one are text."""
    stages = policy("csp", 8).model_dump()["stages"]
    stages[1]["selector"] = {"name": "grid"}
    others = (
        policy("csp", 8, preset="70"),
        Schedule(num_layers=8, num_image_tokens=1024, stages=stages),
    )
    prompt = image_prompt(80, before=5, after=9)
    stray = Prompt(image_prompt(81, before=5, after=9).ids)
    with running(checkpoint, CSP.csp, CSP.first_layers) as engine:
        for other in others:
            [name] = engine.add(prompt, schedule=other.model_dump_json())
            engine.finish()
            assert_undisturbed(engine, model, CSP.plan, prompt, name)
        [name] = engine.add(stray)
        engine.finish()
        tokens = engine.noted[name].tokens
        assert [len(rows) for rows, _ in engine.noted[name].final][:2] == [len(stray), 1]
    with running(checkpoint, DENSE.csp) as engine:
        [name] = engine.add(stray)
        engine.finish()
        assert engine.noted[name].tokens == tokens


def test_the_schedulers_priorities(checkpoint: Path, model: Model) -> None:
    """Under vLLM's priority policy the least important request is preempted, wherever it is."""
    prompts = [image_prompt(90 + i, before=10 + 4 * i, after=40 - 5 * i) for i in range(3)]
    options = {"num_gpu_blocks_override": 46, "max_model_len": 352, "scheduling_policy": "priority"}
    with running(checkpoint, CSP.csp, CSP.first_layers, **options) as engine:
        names = [
            engine.add(prompt, max_tokens=40, priority=-number)[0]
            for number, prompt in enumerate(prompts)
        ]
        engine.finish()
        assert engine.preempted
        for name, prompt in zip(names, prompts, strict=True):
            assert len(engine.noted[name].tokens) == 40
            assert_undisturbed(engine, model, CSP.plan, prompt, name)
