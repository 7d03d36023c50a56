"""The small vocabulary."""

from __future__ import annotations

from pathlib import Path

from vllm_csp.models.published import ADDED_TOKENS
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.training.vocabulary import write_vocabulary


def test_any_printable_ascii_text_survives(tokenizer: LisaTokenizer) -> None:
    text = "".join(map(chr, range(33, 127)))
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_added_tokens_follow_the_pieces(tokenizer: LisaTokenizer) -> None:
    assert [tokenizer.convert_tokens_to_ids(token) for token in ADDED_TOKENS] == [
        300,
        301,
        302,
        303,
    ]
    assert tokenizer.vocab_size == 304


def test_an_existing_vocabulary_is_kept(vocabulary_folder: Path) -> None:
    before = (vocabulary_folder / "tokenizer.model").read_bytes()
    write_vocabulary(vocabulary_folder, ["something else"], pieces=150)
    assert (vocabulary_folder / "tokenizer.model").read_bytes() == before
