"""Bad inputs at a real server: a clear 4xx in time, nothing held, and good requests as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.robustness.case import AnyCase, check
from tests.robustness.conftest import Golden
from tests.robustness.corpus import BLOCKS, WRITTEN
from tests.server import Server

QUICK = 3
"""Of every block so many cases are sent by `make test`, all by `make robustness`."""


def _cases() -> list[object]:
    """(block, case): the quick ones first, so that each set of blocks is sent block by block."""
    quick, slow = [], []
    for block, cases in BLOCKS.items():
        step = max(1, len(cases) // QUICK)
        for number, case in enumerate(cases):
            name = f"{block}: {case.name}"
            if number % step == 0 and number < QUICK * step and block != "sizes":
                quick.append(pytest.param(block, case, id=name))
            else:
                slow.append(pytest.param(block, case, id=name, marks=pytest.mark.slow))
    return [*quick, *slow]


def test_there_are_more_than_300() -> None:
    assert WRITTEN > 300
    for cases in BLOCKS.values():
        names = [case.name for case in cases]
        assert len(set(names)) == len(names)


@pytest.fixture(scope="module")
def block(request: pytest.FixtureRequest, golden: Golden) -> Iterator[str]:
    """A block of cases; at its end a good request gets the masks that it got before the first."""
    yield request.param
    golden.check()


@pytest.mark.timeout(300, func_only=True)
@pytest.mark.parametrize(("block", "case"), _cases(), indirect=["block"])
def test_bad_input(server: Server, block: str, case: AnyCase) -> None:
    check(case, case.send(server))
