"""Which policies one engine can answer."""

from __future__ import annotations

from vllm_csp.evaluation.engine import plan_hosts
from vllm_csp.evaluation.policy_run import PolicyRun

SIZE = (12, 256)
TEXTS = (
    "dense",
    "csp:mean=90",
    "csp:mean=90,cluster=random,scatter=copy",
    "csp:mean=90,cluster=cls",
    "csp:mean=90,cluster=seg_first",
    "csp:mean=77",
    "random:mean=90",
    "prumerge+:mean=90",
    "dense:image_scale=0.5",
    "dense:sam_image_size=512",
    "dense:sam_quantization=int8",
)


def names(share: bool) -> list[set[str]]:
    runs = [PolicyRun.from_text(text) for text in TEXTS]
    return [{run.name for run in host.runs} for host in plan_hosts(runs, SIZE, share=share)]


def test_every_policy_has_its_own_engine() -> None:
    assert names(share=False) == [{text} for text in TEXTS]


def test_shared_engines_take_policies_of_their_layout() -> None:
    assert names(share=True) == [
        {"dense", "dense:image_scale=0.5"},
        {"csp:mean=90", "csp:mean=90,cluster=random,scatter=copy", "csp:mean=90,cluster=cls"},
        {"csp:mean=90,cluster=seg_first"},
        {"csp:mean=77"},
        {"random:mean=90", "prumerge+:mean=90"},
        {"dense:sam_image_size=512"},
        {"dense:sam_quantization=int8"},
    ]


def test_the_host_measures_what_its_guests_need() -> None:
    runs = [PolicyRun.from_text(text) for text in TEXTS]
    hosts = plan_hosts(runs, SIZE, share=True)
    own = [host.schedules[0].stages[0].selector.name for host in hosts]
    assert own == ["all", "cls", "seg_first", "grid", "prumerge+", "all", "all"]
