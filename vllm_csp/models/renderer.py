"""From chat messages to what the engine takes: token ids and the decoded image."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.renderers.base import BaseRenderer
from vllm.renderers.chat_utils import (
    ChatCompletionMessageParam,
    ConversationMessage,
    parse_chat_messages,
    parse_chat_messages_async,
)
from vllm.renderers.inputs import DictPrompt
from vllm.renderers.inputs.preprocess import parse_dec_only_prompt
from vllm.renderers.params import ChatParams

from vllm_csp.config import ConversationTemplate, CspConfig
from vllm_csp.images import NamedImage
from vllm_csp.models.conversation import Piece, Turn, build_prompt
from vllm_csp.models.processor import decoded_image
from vllm_csp.models.tokenizer import LisaTokenizer


def prompt_pieces(
    conversation: Sequence[Mapping[str, Any]],
    default_template: ConversationTemplate = "llava_v1",
    **options: Any,
) -> list[Piece]:
    """Prompt pieces of parsed chat messages.

    Of the options, `conv_template` and `continue_final_message` have a meaning here. Raises
    `VLLMValidationError` (a 400) for an unknown template, roles out of order, or an image outside a
    user message.
    """
    template: ConversationTemplate = options.get("conv_template") or default_template
    if template not in get_args(ConversationTemplate):
        raise VLLMValidationError(
            f"conv_template {template!r} is unknown; choose llava_v1 or llava_llama_2",
            parameter="chat_template_kwargs",
        )
    system, turns = _turns(conversation)
    try:
        return build_prompt(
            turns,
            system=system,
            template=template,
            continue_final_message=bool(options.get("continue_final_message")),
        )
    except ValueError as error:
        raise VLLMValidationError(str(error), parameter="messages") from error


def _turns(conversation: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[Turn]]:
    system: str | None = None
    turns: list[Turn] = []
    for index, message in enumerate(conversation):
        role = message["role"]
        text, has_image = _content(message.get("content"))
        if role in ("system", "developer") and index == 0:
            system = text
        elif role in ("user", "assistant"):
            turns.append(Turn(role, text, has_image))
        else:
            raise VLLMValidationError(
                f"message {index} has role {role!r}: LISA knows one leading system message, then "
                "user and assistant in turn",
                parameter="messages",
            )
        if has_image and role != "user":
            raise VLLMValidationError("the image belongs into a user message", parameter="messages")
    return system, turns


def _content(content: Any) -> tuple[str, bool]:
    if content is None or isinstance(content, str):
        return content or "", False
    texts = [part["text"] for part in content if part["type"] == "text"]
    return "\n".join(texts), any(part["type"] == "image" for part in content)


class LisaRenderer(BaseRenderer[LisaTokenizer]):
    """Renders LISA's own prompt and names each image by its content."""

    def __init__(self, config: VllmConfig, tokenizer: LisaTokenizer | None) -> None:
        super().__init__(config, tokenizer)
        self._settings = CspConfig.from_additional_config(config.additional_config)

    def render_messages(
        self, messages: list[ChatCompletionMessageParam], params: ChatParams
    ) -> tuple[list[ConversationMessage], DictPrompt]:
        """Prompt of chat messages; see `render_messages_async`."""
        parsed = parse_chat_messages(
            _plain(messages),
            self.model_config,
            content_format="openai",
            media_io_kwargs=params.media_io_kwargs,
            mm_processor_kwargs=params.mm_processor_kwargs,
        )
        return self._render(parsed[0], parsed[1], params)

    async def render_messages_async(
        self, messages: list[ChatCompletionMessageParam], params: ChatParams
    ) -> tuple[list[ConversationMessage], DictPrompt]:
        """Prompt of chat messages.

        The image part of the returned conversation carries the decoded image as "image" and its
        content hash as "image_key", for the steps after the engine.
        """
        parsed = await parse_chat_messages_async(
            _plain(messages),
            self.model_config,
            content_format="openai",
            media_io_kwargs=params.media_io_kwargs,
            mm_processor_kwargs=params.mm_processor_kwargs,
        )
        # In a thread: decoding and hashing a large photo would hold up everyone else's tokens.
        return await asyncio.to_thread(self._render, parsed[0], parsed[1], params)

    def _render(
        self,
        conversation: list[ConversationMessage],
        mm_data: Mapping[str, Any] | None,
        params: ChatParams,
    ) -> tuple[list[ConversationMessage], DictPrompt]:
        named = _named_images(mm_data)
        pieces = prompt_pieces(
            conversation,
            default_template=self._settings.conv_template,
            **params.get_apply_chat_template_kwargs(),
        )
        self._check_length(pieces)
        prompt: Any = parse_dec_only_prompt(self.get_tokenizer().encode_prompt(pieces))
        if named:
            prompt["multi_modal_data"] = {"image": [one.image for one in named]}
            # A hash of our own in place of any the client sent: the embedding cache is shared.
            prompt["multi_modal_uuids"] = {"image": [one.key for one in named]}
            _attach(conversation, named)
        return conversation, prompt

    def _check_length(self, pieces: Sequence[Piece]) -> None:
        """Refuse before tokenising, which takes seconds, what cannot fit; the engine counts tokens.

        vLLM does the same for plain prompts.
        """
        context = self.model_config.max_model_len
        length = sum(len(piece) for piece in pieces if isinstance(piece, str))
        if length > context * self.get_tokenizer().max_chars_per_token:
            raise VLLMValidationError(
                f"a text of {length} characters is longer than the context of {context} tokens",
                parameter="messages",
            )


def _plain(messages: list[ChatCompletionMessageParam]) -> list[ChatCompletionMessageParam]:
    """The messages, unless vLLM took one for a message of its Harmony format, made for gpt-oss."""
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise VLLMValidationError(
                f"message {index} has an author; LISA's messages have `role` and `content`",
                parameter="messages",
            )
    return messages


def _named_images(mm_data: Mapping[str, Any] | None) -> list[NamedImage]:
    images = (mm_data or {}).get("image")
    items = [] if images is None else images if isinstance(images, list) else [images]
    return [
        item if isinstance(item, NamedImage) else NamedImage.of(decoded_image(item))
        for item in items
    ]


def _attach(conversation: Sequence[Any], named: Sequence[NamedImage]) -> None:
    parts = [
        part
        for message in conversation
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if part["type"] == "image"
    ]
    for part, one in zip(parts, named, strict=True):
        part["image"], part["image_key"] = one.image, one.key
