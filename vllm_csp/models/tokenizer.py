"""LISA's tokenizer: the ids its authors trained with.

LISA was trained with the slow Llama tokenizer of transformers 4.31, whose added tokens swallow the
whitespace around them. Newer tokenizers give other ids, which the model never saw. This class
follows the old rule on the plain sentencepiece model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import sentencepiece
from transformers import BatchEncoding
from vllm.tokenizers.protocol import TokenizerLike

from vllm_csp.models.conversation import Image, Piece

SEG_TOKEN = "[SEG]"
IMAGE_TOKEN = "<image>"
_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")


class LisaTokenizer(TokenizerLike):
    """Tokenizer of a LISA checkpoint: `tokenizer.model` plus `added_tokens.json`."""

    def __init__(
        self,
        model: sentencepiece.SentencePieceProcessor,
        added_tokens: dict[str, int],
        truncation_side: str = "left",
    ) -> None:
        self._model = model
        self._special = {token: model.piece_to_id(token) for token in _SPECIAL_TOKENS}
        self._added = dict(added_tokens)
        self._truncation_side = truncation_side
        text_vocab_size = max(model.get_piece_size(), 1 + max(added_tokens.values(), default=0))
        self._added[IMAGE_TOKEN] = self.image_token_id = text_vocab_size
        self._id_to_added = {index: token for token, index in self._added.items()}
        # Longest first, as the old tokenizer's trie matched.
        by_length = sorted([*self._special, *added_tokens], key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, by_length)) + ")")
        self._max_chars_per_token = max(map(len, self.get_vocab()))

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id: str | Path,
        *args: Any,
        trust_remote_code: bool = False,
        revision: str | None = None,
        download_dir: str | None = None,
        **kwargs: Any,
    ) -> LisaTokenizer:
        """Load from a checkpoint folder or hub id.

        Raises `ValueError` when the checkpoint has no [SEG] token.
        """
        folder = Path(path_or_repo_id)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            patterns = ["tokenizer.model", "added_tokens.json"]
            folder = Path(
                snapshot_download(
                    str(path_or_repo_id),
                    revision=revision,
                    cache_dir=download_dir,
                    allow_patterns=patterns,
                )
            )
        added_file = folder / "added_tokens.json"
        added: dict[str, int] = json.loads(added_file.read_text()) if added_file.exists() else {}
        if SEG_TOKEN not in added:
            raise ValueError(
                f"{path_or_repo_id} has no {SEG_TOKEN} in added_tokens.json: it is no LISA "
                "checkpoint of version 1 (older ones added their tokens at run time)"
            )
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        return cls(model, added, truncation_side=kwargs.get("truncation_side", "left"))

    @property
    def seg_token_id(self) -> int:
        """Id of `[SEG]`."""
        return self._added[SEG_TOKEN]

    def encode_prompt(self, pieces: Sequence[Piece]) -> list[int]:
        """Ids of a prompt from `build_prompt`: BOS, text, one id per image."""
        ids = [self.bos_token_id]
        for piece in pieces:
            ids += [self.image_token_id] if isinstance(piece, Image) else self._encode_text(piece)
        return ids

    def _encode_text(self, text: str) -> list[int]:
        """Ids of text without BOS: each stretch between added tokens is encoded alone."""
        parts = self._splitter.split(text)
        ids: list[int] = []
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self._special[part] if part in self._special else self._added[part])
                continue
            if index > 0 and parts[index - 1] not in self._special:
                part = part.lstrip()
            if index + 1 < len(parts) and parts[index + 1] not in self._special:
                part = part.rstrip()
            ids += self._model.encode(part, out_type=int) if part else []
        return ids

    def encode(
        self,
        text: str,
        truncation: bool | None = None,
        max_length: int | None = None,
        add_special_tokens: bool = True,
    ) -> list[int]:
        """Ids of a plain prompt; `<image>` in it stands for the image."""
        ids = [self.bos_token_id] if add_special_tokens else []
        for index, part in enumerate(text.split(IMAGE_TOKEN)):
            ids += ([self.image_token_id] if index else []) + self._encode_text(part)
        if truncation and max_length is not None and len(ids) > max_length:
            return ids[-max_length:] if self._truncation_side == "left" else ids[:max_length]
        return ids

    def __call__(
        self,
        text: str | list[str],
        text_pair: str | None = None,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> BatchEncoding:
        if text_pair is not None:
            raise ValueError("LISA has no text pairs")
        texts = [text] if isinstance(text, str) else text
        ids = [self.encode(one, truncation, max_length, add_special_tokens) for one in texts]
        mask = [[1] * len(row) for row in ids]
        if isinstance(text, str):
            return BatchEncoding({"input_ids": ids[0], "attention_mask": mask[0]})
        return BatchEncoding({"input_ids": ids, "attention_mask": mask})

    def apply_chat_template(
        self, messages: list[Any], tools: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> str | list[int]:
        """Ids of chat messages (what the renderer does, for callers that have only this)."""
        from vllm_csp.models.renderer import prompt_pieces

        conversation = kwargs.pop("conversation", messages)
        return self.encode_prompt(prompt_pieces(conversation, **kwargs))

    def convert_ids_to_tokens(
        self, ids: Sequence[int], skip_special_tokens: bool = False
    ) -> list[str]:
        """Pieces of ids; ids behind the vocabulary give ""."""
        special = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._token(index) for index in ids if index not in special]

    def _token(self, index: int) -> str:
        if index in self._id_to_added:
            return self._id_to_added[index]
        return self._model.id_to_piece(index) if 0 <= index < self._model.get_piece_size() else ""

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of pieces; added tokens are set off by spaces, as the old tokenizer did."""
        texts: list[str] = []
        for is_piece, group in groupby(tokens, key=self._is_piece):
            pieces = [token for token in group if token]
            texts += [str(self._model.decode(pieces))] if is_piece else pieces
        return " ".join(texts)

    def _is_piece(self, token: str) -> bool:
        return token not in self._added and token not in self._special

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...

    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        """Ids of pieces."""
        if isinstance(tokens, str):
            return self._added.get(tokens, self._model.piece_to_id(tokens))
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def decode(self, ids: Sequence[int] | int, skip_special_tokens: bool = False) -> str:
        """Text of ids."""
        sequence = [ids] if isinstance(ids, int) else ids
        return self.convert_tokens_to_string(
            self.convert_ids_to_tokens(sequence, skip_special_tokens)
        )

    def get_vocab(self) -> dict[str, int]:
        """All tokens, the image placeholder included."""
        pieces = {
            self._model.id_to_piece(index): index for index in range(self._model.get_piece_size())
        }
        return {**pieces, **self._added}

    def get_added_vocab(self) -> dict[str, int]:
        """Tokens beyond the sentencepiece model."""
        return dict(self._added)

    def num_special_tokens_to_add(self) -> int:
        """BOS."""
        return 1

    @property
    def all_special_tokens(self) -> list[str]:
        """Tokens left out of answers; `[SEG]` is not among them."""
        return list(self._special)

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `all_special_tokens`."""
        return list(self._special.values())

    @property
    def bos_token_id(self) -> int:
        """Id of `<s>`."""
        return self._special["<s>"]

    @property
    def eos_token_id(self) -> int:
        """Id of `</s>`."""
        return self._special["</s>"]

    @property
    def pad_token_id(self) -> int:
        """Id of `<unk>`, which LISA pads with."""
        return self._special["<unk>"]

    @property
    def is_fast(self) -> bool:
        """True: prompts are a handful of short segments, encoded in C++."""
        return True

    @property
    def vocab_size(self) -> int:
        """Ids of the language model, without the image placeholder."""
        return self.image_token_id

    @property
    def max_token_id(self) -> int:
        """The image placeholder, which comes last."""
        return self.image_token_id

    @property
    def max_chars_per_token(self) -> int:
        """Length of the longest token."""
        return self._max_chars_per_token

    @property
    def truncation_side(self) -> str:
        """Side that `encode` cuts: left or right."""
        return self._truncation_side
