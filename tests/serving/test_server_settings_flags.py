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


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (("--sam-image-size", "512"), "sam_image_size", 512),
        (("--sam-quantization", "int8"), "sam_quantization", "int8"),
    ],
)
def test_options_of_sam_arrive_as_settings(
    monkeypatch: pytest.MonkeyPatch, option: tuple[str, str], name: str, value: object
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(cli, "run_server", lambda checkpoint, flags: started.append(list(flags)))
    assert RUNNER.invoke(cli.app, ["serve", "a", *option]).exit_code == 0
    [flags] = started
    given = json.loads(flags[flags.index("--additional-config") + 1])
    assert given == {"csp": {name: value}}
    assert getattr(CspConfig.from_additional_config(given), name) == value


@pytest.mark.parametrize("size", ["0", "500", "4096", "-512"])
def test_sizes_that_cannot_be_are_refused(size: str) -> None:
    done = RUNNER.invoke(cli.app, ["serve", "a", "--sam-image-size", size])
    assert done.exit_code == 2 and "sam_image_size" in done.stderr


def test_other_kinds_of_numbers_than_int8_are_refused() -> None:
    done = RUNNER.invoke(cli.app, ["serve", "a", "--sam-quantization", "int4"])
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
