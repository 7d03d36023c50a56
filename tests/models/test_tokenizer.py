"""LISA's ids: recorded ones, and the old rule on random text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from tests.models.published import SIZES, Size, data_folder, read_json
from tests.models.slow_tokenizer import slow_ids
from vllm_csp.models.conversation import IMAGE, Piece, Turn, build_prompt
from vllm_csp.models.tokenizer import IMAGE_TOKEN, LisaTokenizer

Tokenizers = dict[Size, LisaTokenizer]
RECORDED_IMAGE = -200

each_size = pytest.mark.parametrize("size", SIZES)

SPECIAL = ["<s>", "</s>", "<unk>"]
ADDED = ["[SEG]", "<im_start>", "<im_end>", "<im_patch>"]
SPACES = [" ", "  ", "\n", "\t", " \n ", "\u00a0", "\u3000"]
WORDS = ["cup", ".", ", the", "É", "猫", "🙂", "[SEG", "SEG]", "<im_", "ASSISTANT:", "<", "[["]
texts = st.lists(st.sampled_from([*SPECIAL, *ADDED, *ADDED, *SPACES, *WORDS]), max_size=14).map(
    "".join
)


@pytest.fixture(scope="module")
def pieces() -> SentencePieceProcessor:
    """The plain sentencepiece model."""
    return SentencePieceProcessor(model_file=str(data_folder() / "tokenizer.model"))


def golden(size: Size) -> dict[str, dict[str, list[int]]]:
    return read_json("golden_tokens.json")[size]


@each_size
@pytest.mark.parametrize("name", ["chat", "val_short", "val_long"])
def test_recorded_prompts(tokenizers: Tokenizers, size: Size, name: str) -> None:
    tokenizer, recorded = tokenizers[size], golden(size)[name]
    expected = [
        tokenizer.image_token_id if token == RECORDED_IMAGE else token for token in recorded["ids"]
    ]
    assert tokenizer.encode(str(recorded["text"])) == expected


@each_size
def test_recorded_answers(tokenizers: Tokenizers, size: Size) -> None:
    answers = golden(size)["answers"]
    assert len(answers) == 5
    for text, ids in answers.items():
        assert tokenizers[size].encode(f"{text}</s>", add_special_tokens=False) == ids


@each_size
def test_chat_prompt_is_the_recorded_one(tokenizers: Tokenizers, size: Size) -> None:
    tokenizer, recorded = tokenizers[size], golden(size)["chat"]
    question = str(recorded["text"]).split("<im_end>\n")[1].removesuffix(" ASSISTANT:")
    ids = tokenizer.encode_prompt(build_prompt([Turn("user", question, has_image=True)]))
    assert ids.index(tokenizer.image_token_id) == recorded["ids"].index(RECORDED_IMAGE) == 35
    assert ids == tokenizer.encode(str(recorded["text"]))


@each_size
def test_the_image_token_is_the_first_id_behind_the_vocabulary(
    tokenizers: Tokenizers, size: Size
) -> None:
    tokenizer = tokenizers[size]
    vocabulary = {"7b": 32004, "13b": 32003}[size]
    assert tokenizer.image_token_id == tokenizer.vocab_size == tokenizer.max_token_id == vocabulary
    assert tokenizer.seg_token_id == {"7b": 32003, "13b": 32000}[size]


@given(text=texts)
@settings(max_examples=1500, deadline=None)
def test_random_text_follows_the_old_rule(
    tokenizers: Tokenizers, pieces: SentencePieceProcessor, text: str
) -> None:
    tokenizer = tokenizers["7b"]
    added = {token: tokenizer.get_added_vocab()[token] for token in ADDED}
    assert tokenizer.encode(text, add_special_tokens=False) == slow_ids(pieces, added, text)


@pytest.mark.parametrize("token", ADDED)
@pytest.mark.parametrize("space", SPACES)
def test_space_around_added_tokens_vanishes(tokenizers: Tokenizers, token: str, space: str) -> None:
    encode = tokenizers["7b"].encode
    assert encode(f"a{space}{token}{space}b") == encode(f"a{token}b")


def test_space_around_special_tokens_stays(tokenizers: Tokenizers) -> None:
    encode = tokenizers["7b"].encode
    assert encode("a </s> b") != encode("a</s>b")


def test_text_between_added_tokens_starts_anew(tokenizers: Tokenizers) -> None:
    """The dot after [SEG] is the id of " .", as at the beginning of a text."""
    tokenizer = tokenizers["7b"]
    assert tokenizer.encode("[SEG].", add_special_tokens=False) == [32003, 869]
    assert tokenizer.encode(".", add_special_tokens=False) == [869]


def test_image_placeholder_in_text_pieces_is_plain_text(tokenizers: Tokenizers) -> None:
    """Chat text is a piece of its own: only the image's place becomes its token."""
    tokenizer = tokenizers["7b"]
    pieces: list[Piece] = ["what is ", IMAGE, f" and {IMAGE_TOKEN} here"]
    ids = tokenizer.encode_prompt(pieces)
    assert ids.count(tokenizer.image_token_id) == 1
    assert tokenizer.decode(ids[ids.index(tokenizer.image_token_id) + 1 :]) == " and <image> here"


@pytest.mark.parametrize("text", ["Sure, it is [SEG] .", "This is some old coins.", "猫 É 🙂"])
def test_decoding_gives_the_text_back(tokenizers: Tokenizers, text: str) -> None:
    tokenizer = tokenizers["7b"]
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_seg_is_kept_when_special_tokens_are_skipped(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["7b"]
    ids = tokenizer.encode("Sure, [SEG].</s>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Sure, [SEG] ."


def test_ids_outside_the_vocabulary_decode_to_nothing(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["7b"]
    assert tokenizer.decode([40000, -1]).strip() == ""


def test_special_tokens(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["7b"]
    named = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert named == [0, 1, 2]
    assert tokenizer.all_special_ids == [0, 1, 2]


@pytest.mark.parametrize(("side", "kept"), [("left", slice(-3, None)), ("right", slice(0, 3))])
def test_truncation(tokenizers: Tokenizers, side: str, kept: slice) -> None:
    whole = tokenizers["7b"]
    cut = LisaTokenizer(whole._model, {"[SEG]": 32003}, truncation_side=side)
    ids = cut.encode("one two three four five")
    assert cut.encode("one two three four five", truncation=True, max_length=3) == ids[kept]


def test_a_checkpoint_without_seg_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").symlink_to(data_folder() / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<im_start>": 32000}))
    with pytest.raises(ValueError, match=r"no \[SEG\] in added_tokens.json"):
        LisaTokenizer.from_pretrained(tmp_path)
