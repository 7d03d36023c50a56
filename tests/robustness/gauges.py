"""What a server holds, as `/metrics` and its process tell."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from benchmarks.load.held import GAUGES
from benchmarks.metrics import summed
from tests.server import Server, wait_until

SECONDS = 60

MOST_EMBEDDINGS = 256
MORE_FILES = 32
"""Open files that come and go: connections of vLLM's to itself, threads' pipes."""


@dataclass(frozen=True)
class Holdings:
    """Gauges by name, and open files of the API process."""

    gauges: dict[str, float]
    files: int

    def idle(self) -> bool:
        """Nothing is held for anybody."""
        return not any(self.gauges[name] for name in GAUGES)


def holdings(server: Server) -> Holdings:
    """What is held now."""
    gauges = summed(server.metrics(), (*GAUGES, "vllm_csp:held_embeddings"))
    return Holdings(gauges, psutil.Process(server.process.pid).num_fds())


def wait_until_idle(server: Server) -> Holdings:
    """Wait until nothing is held; gives what is left."""
    wait_until(lambda: holdings(server).idle(), SECONDS, "nothing is held")
    return holdings(server)
