"""The options that say which model a benchmark runs."""

from __future__ import annotations

import argparse

from benchmarks.checkpoint import Size, write_checkpoint
from benchmarks.dtype_options import add_dtype_option

MODEL_OPTIONS = (
    *("checkpoint", "layers", "hidden", "image_tokens", "answer_tokens"),
    *("large", "hollow", "dtype"),
)
"""Names of the parsed options, for a result's setting."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """A trained checkpoint, or a random one and its size."""
    group = parser.add_argument_group("the model")
    group.add_argument("--checkpoint", default="", help="A trained one; else random.")
    group.add_argument("--layers", type=int, default=16)
    group.add_argument("--hidden", type=int, default=1024)
    group.add_argument("--image-tokens", type=int, default=256, help="A square: 256, 576, 1024.")
    group.add_argument("--answer-tokens", type=int, default=7, help="What a random one says.")
    group.add_argument("--large", action="store_true", help="CLIP-L and ViT-H, not tiny ones.")
    group.add_argument("--hollow", action="store_true", help="Weights filled in at random.")
    add_dtype_option(group)


def model_flags(arguments: argparse.Namespace) -> list[str]:
    """The same options again, for a process of its own."""
    names = ("layers", "hidden", "image_tokens", "answer_tokens", "dtype")
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    options += [f"--checkpoint={arguments.checkpoint}"] if arguments.checkpoint else []
    options += ["--large"] if arguments.large else []
    return options + (["--hollow"] if arguments.hollow else [])


def size_of(arguments: argparse.Namespace, image_tokens: int = 0) -> Size:
    """Of the random model, at times with another number of image tokens."""
    tokens = image_tokens or arguments.image_tokens
    return Size(
        arguments.layers, arguments.hidden, tokens, arguments.large, arguments.answer_tokens
    )


def checkpoint_of(arguments: argparse.Namespace, image_tokens: int = 0) -> str:
    """The folder of the checkpoint that is meant; a random one is written if it is not there."""
    if arguments.checkpoint and not image_tokens:
        return str(arguments.checkpoint)
    return str(write_checkpoint(size_of(arguments, image_tokens), arguments.hollow))
