"""One server with narrow limits, JSON logs and traces for the tests that leave it alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.guard.collector import Collector, collecting
from tests.serving.guard.real import Real, running
from vllm_csp.standin import write_standin

LIMITS = (
    *("--max-body-mb", "1", "--max-held-requests", "4"),
    *("--probe-seconds", "0.5", "--stuck-seconds", "8"),
    *("--log-format", "json", "--policy", "csp", "--preset", "65"),
)


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint."""
    return write_standin(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where `real` sends its spans."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="session")
def real(
    standin: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Real]:
    """A server in stages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        # It would log what a wrong request consists of.
        patch.delenv("VLLM_SERVER_DEV_MODE", raising=False)
        out = tmp_path_factory.mktemp("guarded") / "out.log"
        traces = ("--otlp-traces-endpoint", collector.url)
        with running(standin, out, *LIMITS, *traces) as server:
            yield server
