"""The tokenisation rule that LISA was trained with, ported as it stands.

Source: transformers 4.31.0, `tokenization_utils.py`, `PreTrainedTokenizer.tokenize`, with LISA's
added tokens, which are plain strings (no `AddedToken` flags), and Llama's `AddedToken`s for <unk>,
<s>, </s> with `lstrip=rstrip=False`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentencepiece import SentencePieceProcessor

KEEP_SPACES = ("<unk>", "<s>", "</s>")


def _split(text: str, tokens: Sequence[str]) -> list[str]:
    """`Trie.split`: the text cut at every token, the longest one first."""
    parts, start, position = [], 0, 0
    while position < len(text):
        found = [token for token in tokens if text.startswith(token, position)]
        if found:
            token = max(found, key=len)
            parts += [text[start:position], token]
            start = position = position + len(token)
        else:
            position += 1
    return [part for part in [*parts, text[start:]] if part]


def slow_ids(model: SentencePieceProcessor, added: Mapping[str, int], text: str) -> list[int]:
    """Ids without BOS."""
    unsplit = [*KEEP_SPACES, *added]
    tokens = _split(text, unsplit)
    for i, token in enumerate(tokens):
        if token in added:
            left = tokens[i - 1] if i > 0 else None
            right = tokens[i + 1] if i < len(tokens) - 1 else None
            if right:
                tokens[i + 1] = right.lstrip()
            if left:
                tokens[i - 1] = left.rstrip()
    ids: list[int] = []
    for token in tokens:
        if not token:
            continue
        if token in added:
            ids.append(added[token])
        elif token in KEEP_SPACES:
            ids.append(model.piece_to_id(token))
        else:
            ids += model.encode(token, out_type=int)
    return ids
