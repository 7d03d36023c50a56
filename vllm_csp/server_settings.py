"""How a server bounds what it holds, proves that it works, ends, and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LogFormat = Literal["text", "json"]


class ServerSettings(BaseModel):
    """The object `server` in the `csp` settings; flags of `vllm-csp serve` set the same fields.

    With several API servers (`--api-server-count`) each process counts for itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_body_mb: int = Field(
        32, ge=1, description="Largest request body in MiB; a larger one is refused with 413."
    )
    max_held_body_mb: int = Field(
        1024, ge=1, description="MiB of bodies held at a time; what goes beyond is refused (503)."
    )
    max_held_image_mb: int = Field(
        4096,
        ge=1,
        description="MiB of fetched and decoded images held at a time; 503 if there is no room for "
        "30 s. Decoding takes 20 bytes per pixel.",
    )
    body_seconds: float = Field(
        60, gt=0, description="Within this time a body must have arrived, or it is a 408."
    )
    max_held_requests: int = Field(
        1024,
        ge=1,
        description="Answers in the making at a time, each question and each of `n` counted; 503.",
    )
    drain_seconds: float = Field(
        20, ge=0, description="How long requests may run on after SIGTERM, before they are ended."
    )
    probe_seconds: float = Field(
        30, gt=0, description="Age of the last mask from which GET /ready has another one made."
    )
    stuck_seconds: float = Field(
        120, gt=0, description="Without a sign of life of a busy engine for so long, it is stuck."
    )
    log_format: LogFormat = Field("text", description="Of the line that each request leaves.")
