"""Ask questions about images without a server: an engine in this process's care."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from vllm_csp.config import ConversationTemplate, CspConfig
from vllm_csp.images import image_key, to_rgb
from vllm_csp.kv.tracker import SCHEDULE_KEY
from vllm_csp.mask_calls import MaskJob
from vllm_csp.masks import MaskFormat
from vllm_csp.readout.processor import IMAGE_KEY, REQUEST_KEY
from vllm_csp.readout.request_keys import give_key, take_back
from vllm_csp.serving.answer_masks import FORCED_TEXT, failure, json_masks, seg_indexes

if TYPE_CHECKING:
    from vllm import RequestOutput


@dataclass(frozen=True)
class Question:
    """One question; `history` holds earlier (question, answer) turns about the same image.

    mode "force" skips the answer and gives the mask of LISA's fixed one (`[SEG].`). schedule: JSON
    of its own schedule, which must have the layout of the engine's (see `tokens.Schedule.layout`).
    """

    text: str
    image: Image.Image | None = None
    history: Sequence[tuple[str, str]] = ()
    mode: str = "generate"
    template: ConversationTemplate = "llava_v1"
    max_tokens: int = 512
    schedule: str = ""


@dataclass(frozen=True)
class Answered:
    """Text, and masks as JSON objects (see `segment.response.Mask`)."""

    text: str
    masks: list[dict[str, Any]]
    token_ids: list[int] = field(repr=False)
    prompt_token_ids: list[int] = field(repr=False)


class Segmenter:
    """An offline engine; answers batches of questions.

    engine_args are those of `vllm.LLM`.
    """

    def __init__(self, checkpoint: str, **engine_args: Any) -> None:
        from vllm import LLM

        self.llm = LLM(checkpoint, **engine_args)
        self._seg_token_id = self.llm.get_tokenizer().seg_token_id
        self._settings = CspConfig.from_additional_config(
            self.llm.llm_engine.vllm_config.additional_config
        )

    def close(self) -> None:
        """End the engine's process and free its memory; nothing can be asked any more."""
        self.llm.llm_engine.engine_core.shutdown(timeout=20)

    def ask(
        self,
        questions: Sequence[Question],
        mask_format: MaskFormat = "rle",
        progress: bool = False,
    ) -> list[Answered]:
        """Answer questions, in order; those with one template run as one batch.

        Raises `vllm.exceptions.VLLMValidationError` for input that the model cannot take.
        """
        answers: dict[int, Answered] = {}
        for template in sorted({question.template for question in questions}):
            chosen = [i for i, one in enumerate(questions) if one.template == template]
            batch = [questions[i] for i in chosen]
            answers.update(zip(chosen, self._ask(batch, mask_format, progress), strict=True))
        return [answers[i] for i in range(len(questions))]

    def _ask(
        self, questions: Sequence[Question], mask_format: MaskFormat, progress: bool
    ) -> list[Answered]:
        images = [None if one.image is None else to_rgb(one.image) for one in questions]
        keys = ["" if image is None else image_key(image) for image in images]
        requests = [give_key() for _ in questions]
        try:
            outputs = self._outputs(questions, images, requests, keys, progress)
            tokens = [list(output.outputs[0].token_ids) for output in outputs]
            packed = self._packed(questions, images, requests, keys, tokens)
        finally:
            self._decode([], released=requests)
            for request in requests:
                take_back(request)
        return [
            Answered(
                text=FORCED_TEXT if one.mode == "force" else output.outputs[0].text.lstrip(" "),
                masks=_json(packed[i], mask_format) if i in packed else [],
                token_ids=tokens[i],
                prompt_token_ids=list(output.prompt_token_ids),
            )
            for i, (one, output) in enumerate(zip(questions, outputs, strict=True))
        ]

    def _outputs(
        self,
        questions: Sequence[Question],
        images: Sequence[Image.Image | None],
        requests: Sequence[str],
        keys: Sequence[str],
        progress: bool,
    ) -> list[RequestOutput]:
        """The model's answers, in order.

        A request that is refused once it is rendered leaves its image counted as sent: the next one
        about it comes without pixels, and ends with an error. Sent again, it carries them.
        """
        rows = list(zip(questions, images, requests, keys, strict=True))

        def chat(chosen: Sequence[int]) -> list[RequestOutput]:
            return self.llm.chat(
                [_messages(rows[i][0], rows[i][1]) for i in chosen],
                [_sampling(rows[i][0], rows[i][2], rows[i][3]) for i in chosen],
                chat_template_kwargs={"conv_template": questions[0].template},
                use_tqdm=progress,
            )

        outputs = chat(range(len(rows)))
        lost = [i for i, output in enumerate(outputs) if _ended_in_error(output)]
        for i, output in zip(lost, chat(lost) if lost else (), strict=True):
            outputs[i] = output
        if any(_ended_in_error(output) for output in outputs):
            raise RuntimeError("the engine could not answer every question; its log says why")
        return outputs

    def _packed(
        self,
        questions: Sequence[Question],
        images: Sequence[Image.Image | None],
        requests: Sequence[str],
        keys: Sequence[str],
        tokens: Sequence[list[int]],
    ) -> dict[int, dict[str, Any]]:
        """The worker's result for each question that wants masks."""
        jobs: dict[int, MaskJob] = {}
        most = self._settings.max_masks_per_answer
        for i, one in enumerate(questions):
            forced = one.mode == "force"
            indexes = seg_indexes(tokens[i], self._seg_token_id, most, forced=forced)
            if keys[i] and indexes:
                jobs[i] = MaskJob(
                    request_key=requests[i],
                    image_key=keys[i],
                    token_ids=tokens[i],
                    indexes=indexes,
                    of_several=False,
                    wants_tokens=False,
                    wants_spans=False,
                )
        results = dict(zip(jobs, self._decode(list(jobs.values())), strict=True))
        # An embedding may be gone although vLLM still had the image's rows.
        lost = [i for i, found in results.items() if found.get("missing") == "image"]
        if lost:
            again = self._decode([jobs[i] for i in lost], {keys[i]: images[i] for i in lost})
            results.update(zip(lost, again, strict=True))
        return results

    def _decode(
        self,
        jobs: list[MaskJob],
        images: Mapping[str, Image.Image | None] | None = None,
        released: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        from vllm_csp.serving.mask_client import image_pixels

        size = self._settings.sam_image_size
        given = {key: one for key, one in (images or {}).items() if one is not None}
        pixels = [image_pixels(key, one, size) for key, one in given.items()]
        replies = self.llm.collective_rpc("csp_decode_masks", args=(jobs, pixels, list(released)))
        results: list[dict[str, Any]] = next(one for one in replies if one is not None)["results"]
        return results


def _ended_in_error(output: RequestOutput) -> bool:
    return output.outputs[0].finish_reason == "error"


def _json(packed: dict[str, Any], mask_format: MaskFormat) -> list[dict[str, Any]]:
    if (reason := failure(packed)) is not None:
        raise RuntimeError(reason)
    return json_masks(packed, mask_format)


def _messages(question: Question, image: Image.Image | None) -> list[Any]:
    texts = [*question.history, (question.text, None)]
    messages: list[Any] = []
    for turn, (asked, answered) in enumerate(texts):
        content: list[Any] = [{"type": "text", "text": asked}]
        if turn == 0 and image is not None:
            content.insert(0, {"type": "image_pil", "image_pil": image})
        messages.append({"role": "user", "content": content})
        if answered is not None:
            messages.append({"role": "assistant", "content": answered})
    return messages


def _sampling(question: Question, request: str, key: str) -> Any:
    from vllm import SamplingParams

    keys = {REQUEST_KEY: request, IMAGE_KEY: key} if key else {}
    own = {SCHEDULE_KEY: question.schedule} if question.schedule else {}
    return SamplingParams(
        temperature=0.0,
        max_tokens=1 if question.mode == "force" else question.max_tokens,
        extra_args={**keys, **own} or None,
    )
