"""Flags of `vllm-csp serve` that set limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from vllm_csp.config import CspConfig
from vllm_csp.serving import cli

RUNNER = CliRunner()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The flags that `vllm serve` would be started with."""
    found: list[list[str]] = []
    monkeypatch.setattr(cli, "run_server", lambda checkpoint, flags: found.append(list(flags)))
    return found


def serve(*flags: str) -> Any:
    return RUNNER.invoke(cli.app, ["serve", "a-checkpoint", *flags])


def test_they_arrive_as_settings(started: list[list[str]]) -> None:
    flags = ("--max-body-mb", "7", "--drain-seconds", "1.5", "--policy", "csp", "--seed", "3")
    assert serve(*flags, "--log-format", "json").exit_code == 0
    [found] = started
    given = json.loads(found[found.index("--additional-config") + 1])
    assert given["csp"]["server"] == {"max_body_mb": 7, "drain_seconds": 1.5, "log_format": "json"}
    settings = CspConfig.from_additional_config(given)
    assert (settings.policy, settings.server.max_body_mb) == ("csp", 7)
    assert settings.server.max_held_requests == 1024
    assert found[found.index("--logging-config.formatter") + 1] == "json"
    assert found[-2:] == ["--seed", "3"]


def test_without_any_the_defaults_hold(started: list[list[str]]) -> None:
    assert serve().exit_code == 0
    assert started == [["--disable-uvicorn-access-log"]]


@pytest.mark.parametrize(
    "flags",
    [
        ("--max-body-mb", "0"),
        ("--max-held-requests", "-1"),
        ("--body-seconds", "nan"),
        ("--drain-seconds", "inf"),
        ("--log-format", "xml"),
        ("--max-body-mb", "1", "--additional-config", "{}"),
        ("--policy", "csp", "--additional-config={}"),
        ("--policy", "csp", "--additional_config", "{}"),
    ],
)
def test_wrong_ones_are_refused_before_anything_starts(
    started: list[list[str]], flags: tuple[str, ...]
) -> None:
    assert serve(*flags).exit_code == 2
    assert started == []


@pytest.mark.parametrize(
    "section", [{"server": {"max_body": 1}}, {"server": {"drain_seconds": -1}}, {"server": 1}]
)
def test_wrong_settings_are_named(section: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="server"):
        CspConfig.from_section(section, "the settings")
