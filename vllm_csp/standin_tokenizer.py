"""The sentencepiece model of a stand-in: as many pieces as LLaMA's, for English text."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from vllm_csp.mini import MINI

PIECES = 32000
WORDS = ("▁Sure", "▁it", "▁is", "▁.")
"""Of LISA's answers."""
UNHEARD = 0xF0000
"""Private characters begin here, which no text has."""


def write_tokenizer(folder: Path) -> Path:
    """`tokenizer.model` in that folder; one that is there is kept.

    A real one comes with `mistral-common`, which vLLM installs. Where its data is missing, as in an
    installation cut to size, LISA-mini's is filled up with pieces that no text has: texts then have
    more tokens.
    """
    target = folder / "tokenizer.model"
    if target.exists():
        return target
    source = _shipped()
    if source is None:
        target.write_bytes(_filled_up((MINI / "tokenizer.model").read_bytes()))
    else:
        shutil.copy(source, target)
    return target


def _shipped() -> Path | None:
    try:
        file = Path(str(files("mistral_common") / "data" / "tokenizer.model.v1"))
    except ModuleNotFoundError:
        return None
    return file if file.is_file() else None


def _filled_up(model: bytes) -> bytes:
    from sentencepiece import sentencepiece_model_pb2  # needs protobuf

    vocabulary = sentencepiece_model_pb2.ModelProto()
    vocabulary.ParseFromString(model)
    there = {one.piece for one in vocabulary.pieces}
    missing = [one for one in WORDS if one not in there]
    count = PIECES - len(there) - len(missing)
    for piece in (*missing, *map(chr, range(UNHEARD, UNHEARD + count))):
        vocabulary.pieces.add(piece=piece, score=-float(len(vocabulary.pieces)))
    vocabulary.trainer_spec.vocab_size = PIECES
    filled: bytes = vocabulary.SerializeToString()
    return filled
