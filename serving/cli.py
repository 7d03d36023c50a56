"""The command `vllm-csp`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from vllm_csp.images import ImageError
from vllm_csp.mini import MINI
from vllm_csp.serving.client import ServerError, ask_server
from vllm_csp.serving.commands import serve_options
from vllm_csp.serving.commands.batch import batch
from vllm_csp.serving.commands.bench import bench
from vllm_csp.serving.commands.eval import evaluate
from vllm_csp.serving.commands.mode import Mode
from vllm_csp.serving.server import background_server, run_server

app = typer.Typer(
    help="Serve reasoning segmentation on vLLM: ask about an image, get text and masks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)
app.command("eval")(evaluate)
app.command("batch")(batch)
app.add_typer(bench, name="bench")

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm-csp"
SMALL_MODEL_FLAGS = ["--kv-cache-memory-bytes", "256M", "--max-num-seqs", "16"]


Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        "-c",
        envvar="VLLM_CSP_CHECKPOINT",
        help="LISA checkpoint: a folder or a hub id. Default: LISA-mini, which comes along.",
    ),
]

Policy = Annotated[
    str,
    typer.Option(help="Image-token policy: dense, csp, fastv, feather, prumerge, prumerge+, ..."),
]
Preset = Annotated[str, typer.Option(help="Preset of policy csp: 65 or 70 (percent removed).")]
SamImageSize = Annotated[int | None, typer.Option(help=serve_options.SAM_IMAGE_SIZE_HELP)]
SamQuantization = Annotated[str, typer.Option(help=serve_options.SAM_QUANTIZATION_HELP)]


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Photo to ask about.")],
    question: Annotated[str, typer.Argument(help='As in "Where is the cat? ..."')],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the photo with its masks here.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole answer as JSON, masks as COCO RLE.")
    ] = False,
    mode: Annotated[
        Mode, typer.Option(help="generate: the model answers; force: only the mask, no text.")
    ] = Mode.GENERATE,
    show_tokens: Annotated[
        Path | None,
        typer.Option(help="Write a picture of the image tokens that each stage kept here."),
    ] = None,
    checkpoint: Checkpoint = "",
    policy: Policy = "",
    preset: Preset = "",
    sam_image_size: SamImageSize = None,
    sam_quantization: SamQuantization = "",
    base_url: Annotated[
        str, typer.Option(help="Ask this running server instead of starting one.")
    ] = "",
    api_key: Annotated[str, typer.Option(envvar="VLLM_API_KEY", help="Key of that server.")] = "",
) -> None:
    """Ask about one photo; prints the answer and can draw its masks.

    Without --base-url a server is started for the one question (20 s for a small model).
    """
    options: dict[str, Any] = {"mode": mode.value, "show_tokens": show_tokens is not None}
    try:
        flags = serve_options.policy_flags(
            policy, preset, sam_image_size=sam_image_size, sam_quantization=sam_quantization
        )
        if base_url:
            serve_options.require_own_server(flags)
            answer = ask_server(base_url, image, question, api_key=api_key or None, **options)
        else:
            answer = _ask_own_server(checkpoint, flags, image, question, options)
        if output is not None:
            _draw(image, question, answer, output)
        if show_tokens is not None:
            _draw_tokens(image, answer, show_tokens)
    except (ServerError, httpx.HTTPError, ValueError, RuntimeError) as error:
        console.print(f"[red]Error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    message = answer["choices"][0]["message"]
    if as_json:
        shown = {"answer": message["content"], "masks": message["masks"], "usage": answer["usage"]}
        typer.echo(json.dumps(shown))
        return
    typer.echo(message["content"])
    for mask in message["masks"]:
        typer.echo(
            f"  mask {mask['seg_index']}: box {mask['bbox']}, {mask['area']} pixels, "
            f"score {mask['score']:.2f}"
        )
    if not message["masks"]:
        typer.echo("  no mask: the answer has no [SEG]")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    short_help="Run an OpenAI-compatible server.",
)
def serve(
    context: typer.Context,
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="LISA checkpoint: a folder or a hub id. Default: LISA-mini, as `lisa-mini`."
        ),
    ] = "",
    policy: Policy = "",
    preset: Preset = "",
    sam_encoder: Annotated[
        str, typer.Option(help="mobile_sam: MobileSAM's image encoder instead of the checkpoint's.")
    ] = "",
    sam_encoder_weights: Annotated[
        str, typer.Option(help="Its weights: mobile_sam.pt or .safetensors, a folder or a hub id.")
    ] = "",
    sam_image_size: SamImageSize = None,
    sam_quantization: SamQuantization = "",
    max_body_mb: serve_options.MaxBody = None,
    max_held_body_mb: serve_options.MaxHeldBody = None,
    max_held_requests: serve_options.MaxHeldRequests = None,
    body_seconds: serve_options.BodySeconds = None,
    drain_seconds: serve_options.DrainSeconds = None,
    probe_seconds: serve_options.ProbeSeconds = None,
    stuck_seconds: serve_options.StuckSeconds = None,
    log_format: serve_options.Format = "text",
) -> None:
    """Run an OpenAI-compatible server with masks in its answers.

    All flags of `vllm serve` are understood (see `vllm serve --help=all`); it is the same as
    VLLM_PLUGINS=vllm_csp vllm serve CHECKPOINT [FLAGS].
    """
    own = context.args
    if checkpoint.startswith("-"):  # Without a checkpoint its place is taken by the first flag.
        checkpoint, own = "", [checkpoint, *own]
    small = [] if checkpoint else ["--served-model-name", "lisa-mini", *SMALL_MODEL_FLAGS]
    checkpoint = checkpoint or str(MINI)
    if log_format == "text":
        said = f"vllm-csp: serving {checkpoint}; answers carry message.masks"
        console.print(said, highlight=False)
    try:
        settings = serve_options.policy_flags(
            policy,
            preset,
            sam_encoder=sam_encoder,
            sam_encoder_weights=sam_encoder_weights,
            sam_image_size=sam_image_size,
            sam_quantization=sam_quantization,
            server=serve_options.server_section(
                max_body_mb=max_body_mb,
                max_held_body_mb=max_held_body_mb,
                max_held_requests=max_held_requests,
                body_seconds=body_seconds,
                drain_seconds=drain_seconds,
                probe_seconds=probe_seconds,
                stuck_seconds=stuck_seconds,
                log_format=log_format,
            ),
        )
        serve_options.require_one_source(settings, own)
        flags = [*small, *settings, *serve_options.log_flags(log_format), *own]
        if sam_encoder:
            from vllm_csp.models.encoder_file import EncoderFile

            EncoderFile.find(sam_encoder, sam_encoder_weights)
    except ValueError as error:
        console.print(f"[red]Error:[/red] {error}", highlight=False)
        raise typer.Exit(2) from error
    run_server(checkpoint, flags)


@app.command()
def standin(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Write a small checkpoint with random weights, in the layout of the published ones."""
    from vllm_csp.standin import write_standin

    typer.echo(str(write_standin(folder, seed=seed)))


@app.command()
def demo(
    image: Annotated[
        Path | None, typer.Option(help="Photo to use; default: one that scikit-image ships.")
    ] = None,
    question: Annotated[str, typer.Option(help="What to ask.")] = (
        "Can you segment the cat in this image?"
    ),
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("demo/overlay.png"),
    checkpoint: Checkpoint = "",
) -> None:
    """Start a server, send it one real request, draw the answer."""
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        photo = image or _sample_photo()
        answer = _ask_own_server(checkpoint, [], photo, question, {})
        _draw(photo, question, answer, output)
    except (ServerError, httpx.HTTPError, ImageError, RuntimeError) as error:
        console.print(f"[red]Error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    message = answer["choices"][0]["message"]
    typer.echo(f"question: {question}\nanswer:   {message['content']}\npicture:  {output}")


def _ask_own_server(
    checkpoint: str, flags: list[str], image: Path, question: str, options: dict[str, Any]
) -> dict[str, Any]:
    if not checkpoint:
        checkpoint, flags = str(MINI), [*SMALL_MODEL_FLAGS, *flags]
    # Compilation takes longer than one question.
    flags = ["--enforce-eager", *flags]
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "server.log"
    with (
        console.status(f"starting a server with {checkpoint} (log: {log})"),
        background_server(checkpoint, flags, log) as url,
    ):
        return ask_server(url, image, question, **options)


def _draw_tokens(image: Path, answer: dict[str, Any], output: Path) -> None:
    from PIL import Image

    from vllm_csp.images import to_rgb
    from vllm_csp.serving.token_picture import draw_tokens

    if not answer["choices"][0]["message"]["masks"]:
        raise RuntimeError("no tokens to show: the answer has no [SEG] (try --mode force)")
    draw_tokens(to_rgb(Image.open(image)), answer["segmentation"]).save(output)


def _draw(image: Path, question: str, answer: dict[str, Any], output: Path) -> None:
    from PIL import Image

    from vllm_csp.images import to_rgb
    from vllm_csp.serving.overlay import draw_overlay

    message = answer["choices"][0]["message"]
    photo = to_rgb(Image.open(image))
    draw_overlay(photo, message["masks"], question, message["content"]).save(output)


def _sample_photo() -> Path:
    try:
        from skimage import data
    except ImportError as error:
        raise RuntimeError(
            "no photo given: pass --image, or install scikit-image for its sample photos"
        ) from error
    return Path(data.__file__).parent / "chelsea.png"


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
