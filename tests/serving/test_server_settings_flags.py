"""Settings of a server as options: `--policy`, `--sam-image-size`, `--sam-quantization`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from vllm_csp.config import CspConfig
from vllm_csp.serving import cli

RUNNER = CliRunner()


def test_the_size_of_sams_images_arrives_as_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(cli, "run_server", lambda checkpoint, flags: started.append(list(flags)))
    assert RUNNER.invoke(cli.app, ["serve", "a", "--sam-image-size", "512"]).exit_code == 0
    [flags] = started
    given = json.loads(flags[flags.index("--additional-config") + 1])
    assert given == {"csp": {"sam_image_size": 512}}
    assert CspConfig.from_additional_config(given).sam_image_size == 512


@pytest.mark.parametrize("size", ["0", "500", "4096", "-512"])
def test_sizes_that_cannot_be_are_refused(size: str) -> None:
    done = RUNNER.invoke(cli.app, ["serve", "a", "--sam-image-size", size])
    assert done.exit_code == 2 and "sam_image_size" in done.stderr


def test_int8_arrives_as_a_setting_and_other_numbers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(cli, "run_server", lambda checkpoint, flags: started.append(list(flags)))
    assert RUNNER.invoke(cli.app, ["serve", "a", "--sam-quantization", "int8"]).exit_code == 0
    given = json.loads(started[0][started[0].index("--additional-config") + 1])
    assert given == {"csp": {"sam_quantization": "int8"}}
    refused = RUNNER.invoke(cli.app, ["serve", "a", "--sam-quantization", "int4"])
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
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
