"""On few cores the worker computes on all of them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from vllm.utils.ompmultiprocessing import OMPProcessManager

from vllm_csp.cpu_cores import BOUND, RESERVED, use_all_of_few_cores


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set and deleted, so that what the test sets is undone.
    for name in (RESERVED, BOUND):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def on_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(count)))


@pytest.mark.parametrize(("cores", "expected"), [(1, "0"), (2, "0"), (4, "0"), (5, None)])
def test_no_core_is_kept_free_of_few(
    monkeypatch: pytest.MonkeyPatch, cores: int, expected: str | None
) -> None:
    on_cores(monkeypatch, cores)
    use_all_of_few_cores()
    assert os.environ.get(RESERVED) == expected


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cores(monkeypatch, 2)
    monkeypatch.setenv(RESERVED, "1")
    use_all_of_few_cores()
    assert os.environ[RESERVED] == "1"
    monkeypatch.delenv(RESERVED)
    monkeypatch.setenv(BOUND, "nobind")
    use_all_of_few_cores()
    assert RESERVED not in os.environ


@pytest.mark.skipif(
    not 1 < len(os.sched_getaffinity(0)) <= 4, reason="vLLM itself uses all cores but one"
)
def test_vllms_worker_gets_them() -> None:
    parallel = SimpleNamespace(
        local_world_size=1, data_parallel_rank_local=None, _api_process_count=1
    )
    config = SimpleNamespace(parallel_config=parallel, kv_transfer_config=None)
    [before] = OMPProcessManager(config).cpu_lists
    use_all_of_few_cores()
    [after] = OMPProcessManager(config).cpu_lists
    assert len(after) == len(before) + 1
