"""Options of `vllm-csp serve` arrive as settings of the server, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
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


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (("--sam-image-size", "512"), "sam_image_size", 512),
        (("--sam-quantization", "int8"), "sam_quantization", "int8"),
    ],
)
def test_options_of_sam_arrive_as_settings(
    started: list[list[str]], option: tuple[str, str], name: str, value: object
) -> None:
    assert serve(*option).exit_code == 0
    [flags] = started
    given = json.loads(flags[flags.index("--additional-config") + 1])
    assert given == {"csp": {name: value}}
    assert getattr(CspConfig.from_additional_config(given), name) == value


@pytest.mark.parametrize("size", ["0", "500", "4096", "-512"])
def test_sizes_that_cannot_be_are_refused(size: str) -> None:
    done = serve("--sam-image-size", size)
    assert done.exit_code == 2 and "sam_image_size" in done.stderr


def test_other_kinds_of_numbers_than_int8_are_refused() -> None:
    done = serve("--sam-quantization", "int4")
    said = " ".join(done.stderr.split())
    assert done.exit_code == 2
    assert "sam_quantization: Input should be 'none' or 'int8'" in said


@pytest.mark.parametrize(
    "option",
    [("--policy", "csp"), ("--sam-image-size", "512"), ("--sam-quantization", "int8")],
)
def test_a_running_server_is_not_set(tmp_path: Path, option: tuple[str, str]) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    asked = ["segment", str(photo), "Where?", "--base-url", "http://127.0.0.1:1"]
    done = RUNNER.invoke(cli.app, [*asked, *option])
    assert done.exit_code == 1
    assert "leave them or --base-url out" in " ".join(done.stderr.split())
