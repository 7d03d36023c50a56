"""LISA behind Ray Serve: replicas come and go with the load, and serve several models in turn.

    python -m vllm_csp.serving.ray_serve lisa=CHECKPOINT other=CHECKPOINT --max-replicas 8
    serve run vllm_csp.serving.ray_serve:app models='{"lisa": "CHECKPOINT"}' max_replicas=8

A replica runs `vllm-csp serve` as a child for each of its models: all routes are those of a server
without Ray. The front reads which model a request wants; Ray finds a replica that has it.
"""

import asyncio
import json
import os
import shlex
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import httpx
import typer
from pydantic import BaseModel, BeforeValidator, Field

# Five seconds are too few for a machine that starts engines. Read when Serve is imported.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")

import ray
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from vllm_csp.serving.batch.embedded import EmbeddedServer
from vllm_csp.serving.batch.on_ray.cluster import LOCAL, gpus_per_engine, join
from vllm_csp.serving.front_door import front_door

MODEL_HEADER = "serve_multiplexed_model_id"
# Of one connection, not of the request: either end writes its own.
HOP_HEADERS = frozenset({"connection", "content-length", "date", "host", "transfer-encoding"})
SECONDS_TO_FINISH = 60

Headers: TypeAlias = list[tuple[str, str]]


def _read(value: object) -> object:
    """`serve run` passes all values on as text."""
    return json.loads(value) if isinstance(value, str) else value


class Options(BaseModel):
    """What `serve run` takes as key=value. models: checkpoints by name, the first is the default.

    flags: of `vllm serve`, for all of them. gpus: of each replica; `None` for one where the cluster
    has any. requests_per_replica: more than these on their way call for another replica.
    models_per_replica: engines at once; for one more, that which has not been asked for longest
    ends.
    """

    models: Annotated[dict[str, str], BeforeValidator(_read)] = Field(min_length=1)
    flags: str = ""
    gpus: float | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    requests_per_replica: int = 16
    models_per_replica: int = 1


def app(options: Options) -> Application:
    """The application: a front, and the replicas behind it."""
    return application(options, Engine)


def application(options: Options, engine: type["Engine"]) -> Application:
    """The same with engines of another kind."""
    gpus = gpus_per_engine(options.gpus, ray.cluster_resources())
    replicas = serve.deployment(
        name="replica",
        ray_actor_options={"num_gpus": gpus} if gpus else {"num_cpus": 1},
        max_ongoing_requests=4 * options.requests_per_replica,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.requests_per_replica,
        },
        # An engine compiles and measures its memory for minutes before it serves.
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=2 * SECONDS_TO_FINISH,
    )(replica_class(options.models_per_replica, engine))
    front = serve.deployment(
        name="front", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000
    )(Front)
    return front.bind(
        replicas.bind(options.models, options.flags),
        list(options.models),
        options.flags,
        options.max_replicas,
    )


class Engine:
    """A server of one model; ends when Serve lets go of it and its requests are answered."""

    def __init__(self, name: str, checkpoint: str, flags: str) -> None:
        served = [*shlex.split(flags), "--served-model-name", name]
        logs = Path(tempfile.mkdtemp(prefix="vllm-csp-serve-"))
        self._server = EmbeddedServer(checkpoint, served, logs)
        self.num_running = 0
        self.ended = False
        self.url = self._server.start()

    def __del__(self) -> None:
        self.ended = True
        deadline = time.monotonic() + SECONDS_TO_FINISH
        while self.num_running and time.monotonic() < deadline:
            time.sleep(0.1)
        self._server.stop()


def replica_class(num_engines: int, make_engine: type[Engine]) -> type:
    """The class of replicas that keep so many engines."""

    class Replica:
        """Passes requests on to its engines."""

        async def __init__(self, models: dict[str, str], flags: str) -> None:  # type: ignore[misc]
            self._models, self._flags = models, flags
            self._client = httpx.AsyncClient(timeout=None, limits=httpx.Limits())
            self._engines: dict[str, Engine] = {}
            # No request comes here before this engine serves.
            first = next(iter(models))
            self._engines[first] = await self.engine(first)

        @serve.multiplexed(max_num_models_per_replica=num_engines)
        async def engine(self, name: str) -> Engine:
            """The engine of a model, started if need be."""
            return await asyncio.to_thread(make_engine, name, self._models[name], self._flags)

        async def check_health(self) -> None:
            """Called by Serve, which replaces a replica after three errors in a row."""
            self._engines = {name: one for name, one in self._engines.items() if not one.ended}
            for name, engine in list(self._engines.items()):
                reply = await self._client.get(f"{engine.url}/health", timeout=10)
                if reply.status_code != httpx.codes.OK and not engine.ended:
                    raise RuntimeError(f"the engine of {name} answers {reply.status_code}")

        async def __call__(
            self, method: str, path: str, headers: Headers, body: bytes
        ) -> AsyncIterator[Any]:
            """Status and headers, then the body in pieces."""
            name = serve.get_multiplexed_model_id()
            engine = self._engines[name] = await self.engine(name)
            engine.num_running += 1
            try:
                request = self._client.stream(
                    method, engine.url + path, headers=headers, content=body
                )
                async with request as reply:
                    yield reply.status_code, _passed_on(reply.headers.multi_items())
                    async for piece in reply.aiter_raw():
                        yield piece
            finally:
                engine.num_running -= 1

    return Replica


class Front:
    """Finds out which model a request is for.

    It reads the body for that, and so has the servers' limits and their key check itself.
    """

    def __init__(
        self, replicas: DeploymentHandle, models: list[str], flags: str, max_replicas: int
    ) -> None:
        self._replicas = replicas.options(stream=True)
        self._models = models
        self._door = front_door(self._serve, flags, max_replicas)

    async def __call__(self, request: Request) -> Response:
        """Any request to a server; nothing of its body has been read."""
        return _Exchange(self._door)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.url.path == "/v1/models":
            return _models(self._models)
        body = await request.body()
        name = request.headers.get(MODEL_HEADER) or _model_in(body) or self._models[0]
        if name not in self._models:
            return _refusal(404, f"The model `{name}` does not exist.")
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        pieces = aiter(
            self._replicas.options(multiplexed_model_id=name).remote(
                request.method, path, _passed_on(request.headers.items()), body
            )
        )
        status, headers = await anext(pieces)
        answer = StreamingResponse(pieces, status)
        answer.raw_headers.extend((k.encode("latin-1"), v.encode("latin-1")) for k, v in headers)
        return answer


class _Exchange(Response):
    """An answer that is given the whole exchange by Ray Serve."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _passed_on(headers: Any) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in HOP_HEADERS]


def _model_in(body: bytes) -> str | None:
    """The field `model` of a JSON body; forms say it in the header."""
    try:
        fields = json.loads(body) if body.startswith(b"{") else {}
    except (ValueError, RecursionError):
        return None  # the server says what is wrong with it
    model = fields.get("model")
    return model if isinstance(model, str) else None


def _models(names: list[str]) -> Response:
    entries = [{"id": name, "object": "model", "owned_by": "vllm-csp"} for name in names]
    return JSONResponse({"object": "list", "data": entries})


def _refusal(status: int, message: str) -> Response:
    error = {"message": message, "type": "NotFoundError", "param": "model", "code": status}
    return JSONResponse({"error": error}, status)


def main(
    models: Annotated[list[str], typer.Argument(help="NAME=CHECKPOINT, the default first.")],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
    flags: Annotated[str, typer.Option(help="Of vllm serve, in quotes.")] = "",
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="Of each replica. Default: 1 where the cluster has any."),
    ] = None,
    min_replicas: Annotated[int, typer.Option(min=0, help="Kept without load.")] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="Under load.")] = 1,
    requests_per_replica: Annotated[
        int, typer.Option(min=1, help="More than these on their way call for another replica.")
    ] = 16,
    models_per_replica: Annotated[
        int,
        typer.Option(min=1, help="Engines at once; for one more, the longest unused one ends."),
    ] = 1,
    ray_address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="local starts a cluster on this machine.")
    ] = LOCAL,
) -> None:
    """Serve models on Ray until Ctrl-C or SIGTERM."""
    options = Options(
        models=named_checkpoints(models),
        flags=flags,
        gpus=gpus,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        requests_per_replica=requests_per_replica,
        models_per_replica=models_per_replica,
    )
    join(ray_address, max_replicas)
    serve.start(http_options={"host": host, "port": port})
    serve.run(app(options), blocking=True)


def named_checkpoints(models: list[str]) -> dict[str, str]:
    """Checkpoints by name. Raises `BadParameter` for one without a name."""
    pairs = [one.partition("=") for one in models]
    for name, _, checkpoint in pairs:
        if not (name and checkpoint):
            raise typer.BadParameter(f"write NAME=CHECKPOINT, as in lisa={name or checkpoint}")
    return {name: checkpoint for name, _, checkpoint in pairs}


if __name__ == "__main__":
    typer.run(main)
