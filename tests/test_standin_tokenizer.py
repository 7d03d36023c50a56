"""The stand-in's words, with the data that vLLM's needs bring and without."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from vllm_csp import standin_tokenizer
from vllm_csp.standin import answer_ids
from vllm_csp.standin_tokenizer import PIECES, WORDS, write_tokenizer

TEXT = "USER: Can you segment the cat in this image? ASSISTANT:"


@pytest.mark.parametrize("shipped", [True, False])
def test_it_has_as_many_pieces_as_llama_and_says_what_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: bool
) -> None:
    if not shipped:
        monkeypatch.setattr(standin_tokenizer, "_shipped", lambda: None)
    file = write_tokenizer(tmp_path)
    pieces = SentencePieceProcessor(model_file=str(file))
    assert pieces.vocab_size() == PIECES
    ids = pieces.encode(TEXT)
    assert pieces.decode(ids) == TEXT and pieces.unk_id() not in ids
    assert len(ids) < 40
    answer = answer_ids(file, 2007)
    assert answer[0] == ids[-1], "what ends a prompt begins the chain"
    assert len(set(answer)) == len(answer) == 2008, "no token is followed by two"
    said = [pieces.id_to_piece(one) for one in answer if one < PIECES]
    assert tuple(one for one in said if one in WORDS) == WORDS


def test_one_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("mine")
    assert write_tokenizer(tmp_path).read_text() == "mine"
