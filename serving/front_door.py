"""What a request passes before it is given to one of several servers."""

from __future__ import annotations

import json
import os
import shlex
from argparse import ArgumentParser
from collections.abc import Iterable
from functools import partial

from starlette.types import ASGIApp

from vllm_csp.config import CspConfig
from vllm_csp.server_settings import ServerSettings


def front_door(app: ASGIApp, flags: str, num_servers: int) -> ASGIApp:
    """`app` behind the key check and the limits that the servers' own flags ask for.

    What counts all requests together is as much as all the servers may hold. A server's own checks
    stand: here only what is too much for the front is kept out.
    """
    # Of vLLM, which takes seconds to import: only for who opens the door.
    from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

    from vllm_csp.serving.limits.admission import Admission
    from vllm_csp.serving.limits.bodies import Bodies
    from vllm_csp.serving.limits.middleware import Limits

    keys, settings = keys_and_settings(shlex.split(flags))
    together = settings.model_copy(
        update={"max_held_body_mb": num_servers * settings.max_held_body_mb}
    )
    admission = Admission(num_servers * settings.max_held_requests)
    limits = Limits(Bodies(together), admission, lambda: None)
    bounded = partial(limits.serve, app)
    return AuthenticationMiddleware(bounded, keys) if keys else bounded


def keys_and_settings(flags: Iterable[str]) -> tuple[list[str], ServerSettings]:
    """Those of `vllm-csp serve FLAGS`; what `--config FILE` says is left out.

    Raises `ValueError` for settings out of range, `ArgumentError` for what is no JSON.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--api-key", "--api_key", nargs="+", default=[])
    parser.add_argument("--additional-config", "--additional_config", type=json.loads, default={})
    for name in ServerSettings.model_fields:
        parser.add_argument("--" + name.replace("_", "-"), dest=name)
    found, _ = parser.parse_known_args(list(flags))
    given = {name: getattr(found, name) for name in ServerSettings.model_fields}
    own = {name: value for name, value in given.items() if value is not None}
    inner = CspConfig.from_additional_config(found.additional_config).server
    keys = found.api_key or [os.environ.get("VLLM_API_KEY", "")]
    return [key for key in keys if key], ServerSettings(**{**inner.model_dump(), **own})
