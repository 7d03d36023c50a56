"""A small sentencepiece vocabulary for the questions and answers that are trained on."""

from __future__ import annotations

import io
import json
import string
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from vllm_csp.models.conversation import SYSTEM_LLAVA_V1
from vllm_csp.models.published import ADDED_TOKENS
from vllm_csp.models.tokenizer import LisaTokenizer


def write_vocabulary(folder: Path, texts: Iterable[str], pieces: int) -> LisaTokenizer:
    """Train a BPE model on `texts` and write it in LISA's layout; an existing one is kept.

    All printable ASCII characters have a piece, so that any English text can be written; other
    characters become `<unk>`.
    """
    file = folder / "tokenizer.model"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*texts, *[SYSTEM_LLAVA_V1, "USER: ", "ASSISTANT: "] * 50]),
            model_writer=model,
            model_type="bpe",
            vocab_size=pieces,
            hard_vocab_limit=False,
            # The compiled NFKC table alone would take 240 kB.
            normalization_rule_name="identity",
            required_chars="".join(sorted(set(string.printable) - set(string.whitespace))),
            unk_id=0,
            bos_id=1,
            eos_id=2,
            minloglevel=2,
        )
        file.write_bytes(model.getvalue())
        added = {token: pieces + number for number, token in enumerate(ADDED_TOKENS)}
        (folder / "added_tokens.json").write_text(json.dumps(added))
    return LisaTokenizer.from_pretrained(folder)
