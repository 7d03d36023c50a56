"""The allocator setting, measured in page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES = 10_000
"""A block of 40 MB, as a layer's activations may be."""

PROGRAM = f"""
import resource
import numpy
{{setting}}
def use():
    numpy.ones({PAGES} * 4096, numpy.uint8)
for _ in range(3):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    """Page faults of using a block ten times, in a process of its own."""
    program = PROGRAM.format(setting=setting)
    return int(subprocess.check_output([sys.executable, "-c", program], text=True))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    keeping = "from vllm_csp.allocator import keep_freed_memory; assert keep_freed_memory()"
    assert page_faults(keeping) < PAGES / 10
    # Without it every use takes its pages anew: what this is for (huge pages make them fewer).
    assert page_faults("pass") > 10 * max(1, page_faults(keeping))


HOLES = """
import numpy
from vllm_csp import allocator
assert allocator.keep_freed_memory()
allocator.INTERVAL = allocator._next_look = 0
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def holes():
    # Blocks of a megabyte, of which every tenth stays.
    blocks = [numpy.ones(1 << 20, numpy.uint8) for _ in range(1000)]
    return blocks[::10]
before = resident()
kept = holes()
grown = resident() - before
assert allocator.give_back_surplus()
print(grown >> 20, resident() - before >> 20)
assert all(block.all() for block in kept)
kept = None
assert not allocator.give_back_surplus() or resident() - before < 300 << 20
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_holes_between_what_is_used_are_given_back() -> None:
    printed = subprocess.check_output([sys.executable, "-c", HOLES], text=True)
    grown, after = map(int, printed.split())
    assert grown > 900
    assert after < 300


def test_nothing_is_given_back_where_freed_memory_is_not_kept() -> None:
    program = "from vllm_csp import allocator; assert not allocator.give_back_surplus()"
    subprocess.check_call([sys.executable, "-c", program])
