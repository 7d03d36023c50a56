"""Ends an engine whose server has been killed.

Symptom: after a `kill -9` of an API server, or Ray's of a worker's children, vLLM's engine process
waits for requests for ever and keeps its GPU; the next server finds no room. Can go when vLLM's
`EngineCore` notices the end of its parent, as its workers do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

# Names of vLLM's processes (`v1/engine/utils.py`, `v1/utils.py`, `v1/executor`).
PROCESSES = ("EngineCore", "VllmWorker", "ApiServer")
SECONDS_BETWEEN_LOOKS = 1.0


def end_with_parent() -> None:
    """In a process of vLLM's: end soon after the process that started it; idempotent."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    name = f"{__name__} {parent.pid}"
    started = any(thread.name == name for thread in threading.enumerate())
    if multiprocessing.current_process().name.startswith(PROCESSES) and not started:
        threading.Thread(target=_watch, args=(parent.pid,), name=name, daemon=True).start()


def _watch(parent: int) -> None:
    # Not its sentinel: where processes are forked, a sibling may hold the other end.
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)
