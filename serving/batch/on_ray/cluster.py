"""The Ray cluster of a batch: one that runs, or one of this machine for as long as the batch."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from vllm_csp.serving.batch.sources.source import UsageError

if TYPE_CHECKING:
    from ray.data import ActorPoolStrategy

LOCAL = "local"
OBJECT_STORE_BYTES = 200 << 20
"""Of a cluster of this machine: a round's requests; what does not fit is spilled to disk."""

CALLS_PER_WORKER = 2
"""Packs that an engine works on at once: while one runs out, the next fills the engine."""

RESTARTS_PER_WORKER = 20


def join(address: str, num_cpus: int) -> None:
    """Join the cluster at an address; "local" starts one of this machine, ended by `ray.shutdown`.

    num_cpus: at least, of an own one, whatever the machine has: engines on a CPU may share cores.
    Raises `ConnectionError` where there is none.
    """
    # Before Ray is imported: it reports nothing to its makers, and shows no bars of its own.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray

    logs = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != LOCAL:
        ray.init(address, **logs)
        return
    with _loopback():
        ray.init(
            LOCAL,
            num_cpus=max(os.cpu_count() or 1, num_cpus),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **logs,
        )


@contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray take 127.0.0.1 for what it is: on Linux it listens on all addresses instead."""
    from ray._private import services

    reachable = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = reachable


def gpus_per_engine(asked: float | None, resources: dict[str, float]) -> float:
    """What each engine reserves: as asked, or, for `None`, one where the cluster has any."""
    if asked is not None:
        return asked
    return 1 if resources.get("GPU") else 0


@dataclass
class Cluster:
    """Use as a context manager.

    address: of a running cluster; "local" starts one. num_workers: engines, 0 for one per GPU.
    gpus: for each engine, `None` for one where the cluster has any.
    """

    address: str
    num_workers: int = 0
    gpus: float | None = None
    _resources: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        if find_spec("ray") is None:
            raise UsageError("--ray needs Ray: pip install 'ray[data,serve]>=2.60,<2.64'")
        try:
            join(self.address, self.num_workers)
        except ConnectionError as error:
            raise UsageError(f"no Ray cluster at {self.address}: {error}") from error
        import ray.data

        try:
            self._plan(ray.cluster_resources())
        except UsageError:
            self.close()
            raise
        # Ray tells here which workers have died; standard output is for the summary.
        self._resources.enter_context(redirect_stdout(sys.stderr))
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # One machine may be broken; when none starts an engine, the run ends.
        context.max_consecutive_actor_init_deaths = 2 * self.num_workers
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._resources.close()

    @staticmethod
    def close() -> None:
        """Leave the cluster; one of its own ends, with all engines."""
        import ray

        ray.shutdown()

    def pool(self, num_packs: int) -> tuple[ActorPoolStrategy, dict[str, Any]]:
        """The actors for `map_batches` of so many packs, and what each actor needs."""
        from ray.data import ActorPoolStrategy

        strategy = ActorPoolStrategy(
            size=min(self.num_workers, num_packs),
            max_tasks_in_flight_per_actor=CALLS_PER_WORKER,
            max_concurrent_calls_per_actor=CALLS_PER_WORKER,
            enable_true_multi_threading=True,
        )
        need = {"num_gpus": self.gpus} if self.gpus else {"num_cpus": 1}
        return strategy, {**need, "max_restarts": RESTARTS_PER_WORKER}

    def _plan(self, resources: dict[str, float]) -> None:
        gpus = resources.get("GPU", 0)
        self.gpus = gpus_per_engine(self.gpus, resources)
        if self.num_workers == 0:
            self.num_workers = max(1, int(gpus / self.gpus)) if self.gpus else 1
        if self.address != LOCAL:
            return  # What is missing may come: clusters grow.
        if self.gpus * self.num_workers > gpus:
            raise UsageError(
                f"{self.num_workers} engines with {self.gpus:g} GPUs each, but the cluster has "
                f"{gpus:g}: fewer --ray-workers"
            )
        cpus = resources.get("CPU", 0)
        if not self.gpus and self.num_workers > cpus:
            raise UsageError(
                f"{self.num_workers} engines, but the cluster has {cpus:g} CPUs: "
                "fewer --ray-workers"
            )
