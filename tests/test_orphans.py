"""An engine process ends with the process that started it, other processes do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.processes import lives
from tests.server import wait_until

# A parent that starts a child, says its number and sleeps.
PARENT = """
import multiprocessing, sys, time
from tests.test_orphans import child
if __name__ == "__main__":
    multiprocessing.set_start_method("{method}")
    process = multiprocessing.Process(target=child, name="{name}")
    sibling = multiprocessing.Process(target=child, name="sibling", daemon=True)
    process.start()
    sibling.start()
    print(process.pid, sibling.pid, flush=True)
    time.sleep(100)
"""


def child() -> None:
    from vllm_csp.orphans import end_with_parent

    end_with_parent()
    end_with_parent()
    time.sleep(60)


@pytest.mark.parametrize(
    ("name", "ends", "method"),
    [
        ("EngineCore_DP1", True, "spawn"),
        ("EngineCore_DP1", True, "fork"),
        ("VllmWorker-0", True, "spawn"),
        ("Process-1", False, "fork"),
    ],
)
def test_the_engine_ends_when_its_parent_is_killed(name: str, ends: bool, method: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(method=method, name=name)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    numbers = [int(one) for one in parent.stdout.readline().split()]
    try:
        time.sleep(3 if ends else 6)
        assert all(map(lives, numbers))
        parent.kill()
        parent.wait()
        if ends:
            wait_until(lambda: not lives(numbers[0]), 60, "the engine has ended")
        else:
            time.sleep(4)
            assert lives(numbers[0])
    finally:
        parent.kill()
        for number in filter(lives, numbers):
            os.kill(number, signal.SIGKILL)
