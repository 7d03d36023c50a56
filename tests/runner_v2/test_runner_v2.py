"""Model runner V2 and what else only GPUs choose: tests in a process of their own, interpreted.

Triton asks for its interpreter, and vLLM for the runner, when they are imported. Slow, as each
program of a kernel is a piece of Python; `make test-v2` runs more of the tests in the same way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from vllm.platforms import current_platform

# The CPU's platform is made to look like a GPU's; beside a GPU there is no need.
pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="for the CPU engine")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ON_V2 = {
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "PYTHONPATH": os.pathsep.join((str(HERE / "on_path"), str(ROOT))),
}
EQUAL = "tests/staged/test_engine_equals_reference.py"
# csp's stages differ in all that a runner tells them.
RUN = (
    f"{EQUAL}::test_greedy_tokens[csp-65]",
    f"{EQUAL}::test_kept_tokens[csp-65]",
    f"{EQUAL}::test_states_at_every_stage_boundary[csp-65]",
    "tests/runner_v2/asynchronous.py::test_steps_scheduled_ahead_are_the_reference_s",
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each test of `RUN`; empty if it passed."""
    return run_on_v2(tmp_path_factory.mktemp("v2") / "report.xml", RUN)


def run_on_v2(report: Path, tests: Sequence[str]) -> dict[str, str]:
    """By name what went wrong in each of these tests, nothing if it passed."""
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *tests]
    command += ["-p", "no:cacheprovider"]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ON_V2}, text=True, capture_output=True, check=False
    )
    assert report.exists(), run.stdout[-6000:] + run.stderr[-2000:]
    cases = ElementTree.parse(report).iter("testcase")
    return {
        case.attrib["name"]: "".join(
            ElementTree.tostring(part, "unicode")
            for part in case
            if part.tag in ("failure", "error", "skipped")
        )
        for case in cases
    }


@pytest.mark.parametrize("test", RUN, ids=lambda test: test.split("::")[1])
def test_holds_on_runner_v2(outcomes: dict[str, str], test: str) -> None:
    assert outcomes[test.split("::")[1]] == ""


SLOW = (
    "tests/runner_v2/captured_decoding.py::test_replayed_steps_are_the_reference_s",
    "tests/runner_v2/shared_images.py::test_a_shared_photo_is_written_to_both_requests",
    "tests/runner_v2/captured_masks.py::test_masks_are_those_of_eager_steps[dense]",
    "tests/runner_v2/captured_masks.py::test_masks_are_those_of_eager_steps[csp]",
)


@pytest.mark.slow
@pytest.mark.parametrize("test", SLOW, ids=lambda test: test.split("::")[1])
def test_holds_on_runner_v2_in_a_minute_or_more(test: str, tmp_path: Path) -> None:
    assert list(run_on_v2(tmp_path / "report.xml", [test]).values()) == [""]
