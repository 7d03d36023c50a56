"""A whole batch, from the input to the output: what `vllm-csp batch` does."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import httpx
from rich.console import Console

from vllm_csp.serving.batch.asker import Asker
from vllm_csp.serving.batch.backlog import Backlog
from vllm_csp.serving.batch.connection import new_client
from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.embedded import EmbeddedEndpoint, EmbeddedServer
from vllm_csp.serving.batch.endpoint import Endpoint
from vllm_csp.serving.batch.fleet import Fleet
from vllm_csp.serving.batch.journal import Journal
from vllm_csp.serving.batch.on_ray.cluster import CALLS_PER_WORKER, Cluster
from vllm_csp.serving.batch.on_ray.rounds import Rounds
from vllm_csp.serving.batch.on_ray.worker import Engine
from vllm_csp.serving.batch.output import Output
from vllm_csp.serving.batch.photos import Photos
from vllm_csp.serving.batch.preflight import check_servers
from vllm_csp.serving.batch.progress import ProgressReport
from vllm_csp.serving.batch.recovery import recover
from vllm_csp.serving.batch.row import Rejected, Row
from vllm_csp.serving.batch.run import Run, Work, record_rejected
from vllm_csp.serving.batch.sources.source import Source, UsageError
from vllm_csp.serving.batch.stop import Stop
from vllm_csp.serving.batch.tally import Tally
from vllm_csp.serving.batch.window import grouped


@dataclass(frozen=True)
class Settings:
    """How to ask; times in seconds."""

    base_urls: tuple[str, ...] = ()
    api_key: str = ""
    model: str | None = None
    concurrency: int = 32
    look_ahead: int = 1024
    retries: int = 8
    timeout: float = 300
    patience: float = 120
    rows_per_round: int = 0


@dataclass
class Job:
    """One run. server: started for it, where there are no `base_urls`; cluster: starts many."""

    source: Source
    output: Output
    settings: Settings
    console: Console
    server: EmbeddedServer | None = None
    cluster: Cluster | None = None
    tally: Tally = field(default_factory=Tally)
    stopped: bool = False

    def run(self, *, resume: bool) -> dict[str, Any]:
        """Do all that is left to do, and return the summary.

        Raises `UsageError`, `BusyError`, `InputChangedError` or `NotAJournalError` for what cannot
        be done, `OSError` when the output cannot be written, `RuntimeError` when the server does
        not start.
        """
        with Journal(self.output.journal) as journal:
            answered = DiskIndex()
            if resume:
                self._recover(journal, answered)
            backlog = Backlog(answered)
            work = grouped(backlog.rows(self.source.rows()), self.settings.look_ahead)
            extra = self._ask(work, journal, backlog)
        self.tally.earlier = backlog.num_answered
        if not self.stopped:
            self.tally.total = self.tally.done
            if self.tally.total == 0:
                raise UsageError("the input has no rows: no photo or no line in it")
            with self.console.status(f"writing {self.output.path}"):
                self.output.write()
        return {**self.tally.summary(), **extra}

    @property
    def complete(self) -> bool:
        """Whether every row of the input has an answer."""
        return not self.stopped and self.tally.failed == 0

    def _recover(self, journal: Journal, answered: DiskIndex) -> None:
        found = recover(journal.path, answered)
        if found.failures or found.damaged:
            journal.reopen()
        self.console.print(
            f"resuming: {found.answers:,} rows have been answered, {found.failures:,} had failed "
            "and are tried again"
            + (f"; {found.damaged:,} damaged lines taken out" if found.damaged else ""),
            highlight=False,
            soft_wrap=True,
        )

    def _ask(self, work: Work, journal: Journal, backlog: Backlog) -> dict[str, Any]:
        """Ask what is left; no server is started when that is nothing."""
        first = self._first_group(work, journal)
        if first is None:
            return {}
        work = chain([first], work)
        with ExitStack() as resources:
            url = None
            if self.cluster is not None:
                with self.console.status("joining the Ray cluster"):
                    resources.enter_context(self.cluster)
            elif self.server is not None:
                resources.callback(self.server.stop)
                with self.console.status(f"starting a server (it logs to {self.server.logs})"):
                    url = self.server.start()
            return asyncio.run(self._ask_all(work, journal, backlog, url))

    def _first_group(self, work: Work, journal: Journal) -> list[Row] | None:
        for item in work:
            if not isinstance(item, Rejected):
                return item
            record_rejected(item, journal, self.tally)
        return None

    async def _ask_all(
        self, work: Iterator[Any], journal: Journal, backlog: Backlog, url: str | None
    ) -> dict[str, Any]:
        stop = Stop()
        self.tally.started = time.monotonic()
        self._watch_signals(stop)
        counting = asyncio.create_task(self._count())
        with ProgressReport(self.tally, self.console) as report:
            tick = self._ticker(backlog, report)
            if self.cluster is not None:
                extra = await self._ask_cluster(self.cluster, work, journal, stop, tick)
            else:
                extra = await self._ask_servers(work, journal, stop, tick, url)
        counting.cancel()
        self.stopped = stop.asked
        return extra

    async def _ask_servers(
        self,
        work: Iterator[Any],
        journal: Journal,
        stop: Stop,
        tick: Callable[[], None],
        url: str | None,
    ) -> dict[str, Any]:
        settings = self.settings
        photos = Photos(settings.concurrency + 1)
        client = new_client(settings.timeout, settings.api_key)
        async with client, self._fleet(client, url) as fleet:
            if url is None:
                for absent in await check_servers(fleet, client):
                    self.console.print(f"{absent} does not answer yet", highlight=False)
            model = "" if url else settings.model
            asker = Asker(client, fleet, photos, stop, retries=settings.retries, model=model)
            run = Run(asker, journal, self.tally, stop, concurrency=settings.concurrency)
            await run.finish(work, tick)
            restarts = self.server.num_starts - 1 if self.server else None
        return {
            "images_read": photos.num_read,
            "retries": asker.num_retries,
            "server_restarts": restarts,
        }

    async def _ask_cluster(
        self,
        cluster: Cluster,
        work: Iterator[Any],
        journal: Journal,
        stop: Stop,
        tick: Callable[[], None],
    ) -> dict[str, Any]:
        assert self.server is not None
        settings = self.settings
        engine = Engine(
            checkpoint=self.server.checkpoint,
            flags=self.server.flags,
            logs=self.server.logs,
            pack_size=max(1, settings.concurrency // CALLS_PER_WORKER),
            retries=settings.retries,
            timeout=settings.timeout,
            start_seconds=self.server.start_seconds,
        )
        rounds = Rounds(cluster, engine, journal, self.tally, stop, rows=settings.rows_per_round)
        await rounds.finish(work, tick)
        return {"workers": cluster.num_workers, **rounds.counts}

    def _ticker(self, backlog: Backlog, report: ProgressReport) -> Callable[[], None]:
        def tick() -> None:
            self.tally.earlier = backlog.num_answered
            report.show()

        return tick

    async def _count(self) -> None:
        # A number for the progress bar; an input that cannot be read fails where it is read.
        with suppress(OSError, ValueError):
            self.tally.total = await asyncio.to_thread(self.source.count)

    def _fleet(self, client: httpx.AsyncClient, url: str | None) -> Fleet:
        if url is not None and self.server is not None:
            return Fleet([EmbeddedEndpoint(self.server, url, client)], patience=None)
        endpoints = [Endpoint(one, client) for one in self.settings.base_urls]
        return Fleet(endpoints, patience=self.settings.patience)

    def _watch_signals(self, stop: Stop) -> None:
        def ask() -> None:
            if stop.asked:
                # All that is finished has been written; a server that was started ends by itself.
                self.console.show_cursor()
                os._exit(1)
            stop.ask()
            self.console.print("stopping when the rows on their way are answered (again: at once)")

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ask)
