"""LISA's prompts: from chat messages to text pieces around the image.

Source: `model/llava/conversation.py` and `chat.py` of LISA (templates `llava_v1`, `llava_llama_2`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vllm_csp.config import ConversationTemplate

SYSTEM_LLAVA_V1 = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SYSTEM_LLAVA_LLAMA_2 = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)


class Image:
    """Marks the place of the image among the text pieces of a prompt."""


IMAGE = Image()
Piece = str | Image


@dataclass(frozen=True)
class Turn:
    """One message: role "user" or "assistant", its text, and whether it carries the image."""

    role: str
    text: str
    has_image: bool = False


def build_prompt(
    turns: Sequence[Turn],
    *,
    system: str | None = None,
    template: ConversationTemplate = "llava_v1",
    continue_final_message: bool = False,
) -> list[Piece]:
    """Prompt pieces for a conversation that ends with a user turn.

    With `continue_final_message` the last assistant turn is left open for the model to go on.
    Raises `ValueError` when the turns do not alternate, starting with the user.
    """
    _check_order(turns, continue_final_message)
    if template == "llava_v1":
        text = _llava_v1(turns, SYSTEM_LLAVA_V1 if system is None else system)
    else:
        text = _llava_llama_2(turns, SYSTEM_LLAVA_LLAMA_2 if system is None else system)
    if continue_final_message:
        text[-1] = _without_suffix(text[-1], "</s>").rstrip(" ")
    elif template == "llava_v1":
        text.append("ASSISTANT:")
    return _merge(text)


def _llava_v1(turns: Sequence[Turn], system: str) -> list[Piece]:
    pieces: list[Piece] = [system + " "]
    for turn in turns:
        if turn.role == "user":
            pieces += ["USER: ", *_user_content(turn), " "]
        else:
            pieces.append(f"ASSISTANT: {turn.text}</s>")
    return pieces


def _llava_llama_2(turns: Sequence[Turn], system: str) -> list[Piece]:
    pieces: list[Piece] = []
    for index, turn in enumerate(turns):
        if turn.role == "user":
            # The very first "<s>" is the tokenizer's own.
            opening = f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n" if index == 0 else "<s>[INST] "
            pieces += [opening, *_user_content(turn), " [/INST]"]
        else:
            pieces.append(f" {turn.text} </s>")
    return pieces


def _user_content(turn: Turn) -> list[Piece]:
    if turn.has_image:
        return ["<im_start>", IMAGE, f"<im_end>\n{turn.text}"]
    return [turn.text]


def _merge(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbouring strings: tokens may span what was written piece by piece."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _without_suffix(piece: Piece, suffix: str) -> str:
    assert isinstance(piece, str)
    return piece.removesuffix(suffix)


def _check_order(turns: Sequence[Turn], continue_final_message: bool) -> None:
    expected = ["user", "assistant"] * (len(turns) // 2 + 1)
    if [turn.role for turn in turns] != expected[: len(turns)]:
        raise ValueError(
            "messages must alternate between user and assistant, starting with user "
            "(one system message may come first)"
        )
    last = "assistant" if continue_final_message else "user"
    if not turns or turns[-1].role != last:
        raise ValueError(f"the last message must come from the {last}")
