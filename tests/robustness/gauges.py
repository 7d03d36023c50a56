"""What a server holds, as `/metrics` and its process tell."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from tests.server import Server, wait_until

SECONDS = 60

NOTHING = (
    "vllm_csp:held_streams",
    "vllm_csp:pinned_embeddings",
    "vllm_csp:held_requests",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
)
"""Gauges that are 0 when nobody waits for an answer: queries, embeddings, requests, blocks."""

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
        return not any(self.gauges[name] for name in NOTHING)


def holdings(server: Server) -> Holdings:
    """What is held now."""
    with server.client() as client:
        lines = client.get("/metrics").raise_for_status().text.splitlines()
    gauges: dict[str, float] = dict.fromkeys(NOTHING, 0.0)
    for line in lines:
        name = line.split("{")[0].split(" ")[0]
        if name in gauges or name == "vllm_csp:held_embeddings":
            gauges[name] = gauges.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return Holdings(gauges, psutil.Process(server.process.pid).num_fds())


def wait_until_idle(server: Server) -> Holdings:
    """Wait until nothing is held; gives what is left."""
    wait_until(lambda: holdings(server).idle(), SECONDS, "nothing is held")
    return holdings(server)
