"""Options of commands that start servers, as flags of `vllm serve` and `csp` settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vllm_csp.server_settings import LogFormat, ServerSettings


def _option(name: str) -> Any:
    field = ServerSettings.model_fields[name]
    return typer.Option(help=f"{field.description} Default: {field.default:g}.")


SERVER = "Server"
"""Panel of the help that options of a started server stand in."""
SMALL_MODEL_FLAGS = ("--kv-cache-memory-bytes", "256M", "--max-num-seqs", "16")

Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        "-c",
        envvar="VLLM_CSP_CHECKPOINT",
        rich_help_panel=SERVER,
        help="LISA checkpoint for a server started here: a folder or a hub id. Default: LISA-mini, "
        "which comes with this package.",
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        rich_help_panel=SERVER,
        help="Image-token policy: dense, csp, fastv, feather, prumerge, prumerge+, ...",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        rich_help_panel=SERVER,
        help="Preset of policy csp: 65 or 70, the percentage of image tokens that it leaves out, "
        "of those of all layers together.",
    ),
]
SamImageSize = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=SERVER,
        help="Pixels of a photo's long side as SAM sees it, 256 to 1024 in steps of 64. Default: "
        "1024; fewer are faster and make coarser masks (docs/sam_encoders.md).",
    ),
]
SamQuantization = Annotated[
    str,
    typer.Option(
        rich_help_panel=SERVER,
        help="int8: linear layers of SAM's image encoder compute in INT8, for ViT-H on CPUs "
        "without AMX (docs/sam_encoders.md). Default: none.",
    ),
]
StartSeconds = Annotated[
    float,
    typer.Option(
        min=1,
        rich_help_panel=SERVER,
        help="How long a server started here may take until it is ready, with the download of its "
        "checkpoint. A download that this ends goes on where it was when the command is repeated.",
    ),
]
MaxBody = Annotated[int | None, _option("max_body_mb")]
MaxHeldBody = Annotated[int | None, _option("max_held_body_mb")]
MaxHeldImage = Annotated[int | None, _option("max_held_image_mb")]
MaxHeldRequests = Annotated[int | None, _option("max_held_requests")]
BodySeconds = Annotated[float | None, _option("body_seconds")]
DrainSeconds = Annotated[float | None, _option("drain_seconds")]
ProbeSeconds = Annotated[float | None, _option("probe_seconds")]
StuckSeconds = Annotated[float | None, _option("stuck_seconds")]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="json: every line of the log is a JSON object."),
]


def server_section(**options: Any) -> dict[str, Any]:
    """The given ones of the options, as the object `server`.

    Raises `ValueError` for a value that is out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("log_format") == "text":
        del given["log_format"]
    ServerSettings(**given)
    return given


def log_flags(log_format: LogFormat) -> list[str]:
    """Flags of `vllm serve` for logs in one format; each request has our line, not uvicorn's."""
    flags = ["--disable-uvicorn-access-log"]
    return [*flags, "--logging-config.formatter", "json"] if log_format == "json" else flags


def policy_flags(policy: str, preset: str, **settings: Any) -> list[str]:
    """`vllm serve` flags that choose a policy, and further settings of `CspConfig`.

    What is empty keeps its default. Raises `ValueError` for an unknown policy or value.
    """
    from vllm_csp.config import CspConfig

    section = {"policy": policy, "preset": preset, **settings}
    section = {name: value for name, value in section.items() if value not in (None, "", {})}
    CspConfig.from_section(section, "the choice of settings")
    return ["--additional-config", json.dumps({"csp": section})] if section else []


def require_one_source(settings: Sequence[str], flags: Sequence[str]) -> None:
    """Raise `ValueError` if settings come as options and in the flags of `vllm serve`, too.

    vLLM would take the last `--additional-config` and forget the other.
    """
    given = [one.replace("_", "-") for one in flags]
    if settings and any(one.startswith("--additional-config") for one in given):
        raise ValueError(
            "give all settings as flags, or all with --additional-config; the flags mean "
            f"{settings[1]}"
        )


def require_own_server(settings: Sequence[str]) -> None:
    """Beside `--base-url`: a server that runs has its settings.

    Raises `ValueError` if flags were made of options.
    """
    if settings:
        raise ValueError(
            "--policy, --preset, --sam-image-size and --sam-quantization are settings of a server "
            "that is started here: leave them or --base-url out"
        )
