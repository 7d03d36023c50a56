"""Keeps glibc from giving memory back to the kernel between layers.

Symptom: on a CPU a layer's activations are larger than what glibc keeps, so every layer takes its
memory from the kernel again, page by page, and much of the time goes there; how much shows
`python -m benchmarks.encode --encoders mobile_sam --allocators kept default`. A preloaded tcmalloc
or jemalloc, which vLLM recommends for CPUs, does the same and is left alone. Can go when vLLM's CPU
worker sets this or brings such an allocator.
"""

from __future__ import annotations

import ctypes
import platform
import time

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_MOST = (1 << 31) - 1
_STEP_BYTES = 64 << 20

INTERVAL = 60.0
_LEAST_SURPLUS = 256 << 20
_SURPLUS_SHARE = 0.25

# When to look for a surplus again; None where freed memory is not kept.
_next_look: float | None = None


class _HeapUse(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    )


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed and to grow in steps of 64 MiB; idempotent.

    For the whole process. Returns whether the allocator is glibc's and took the settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MOST), (_M_TOP_PAD, _STEP_BYTES))
    taken = all(libc.mallopt(name, value) == 1 for name, value in settings)
    if taken and hasattr(libc, "mallinfo2"):
        global _next_look
        _next_look = time.monotonic() + INTERVAL
    return taken


def give_back_surplus() -> bool:
    """Once a minute, give what is kept in vain back to the kernel. Returns whether it did.

    Requests of ever other sizes leave ever other holes: kept for good, a server's memory would grow
    for hours. Up to a quarter of what is in use, and 256 MiB, is kept all the same; taking the rest
    again costs a second a minute at worst. Does nothing where freed memory is not kept.
    """
    global _next_look
    if _next_look is None or time.monotonic() < _next_look:
        return False
    _next_look = time.monotonic() + INTERVAL
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _HeapUse
    use = libc.mallinfo2()
    if use.fordblks <= _LEAST_SURPLUS + _SURPLUS_SHARE * use.uordblks:
        return False
    libc.malloc_trim(0)
    return True
