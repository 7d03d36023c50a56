"""What people run today, on the same weights: the reference's loop, and Hugging Face's `generate`.

`ReferenceLoop` does what LISA's chat script does (facts from its paper and published code, none of
the code): one question at a time; for every token the whole prompt anew, image encoder of the
language model included, without KV cache; SAM's encoder and mask decoder as segment-anything ships
them, one image at a time, its positional encoding anew each time; masks at full resolution in fp32
to the host, thresholded there. `HuggingFace` is what a careful user would write: KV cache, all
questions in one padded batch, CLIP and SAM in one batch, mask decoding still in a loop over images.

Both read a checkpoint folder in LISA's layout and give tokens and masks as the engine does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from benchmarks.calls import Mask
from benchmarks.random_weights import answer_of, make_up
from benchmarks.shipped import shipped_encode, shipped_masks
from vllm_csp.images import (
    CLIP_MEAN,
    CLIP_STD,
    SAM_IMAGE_SIZE,
    clip_crop,
    sam_resize,
    to_rgb,
)
from vllm_csp.models.config import LisaConfig, resolve_vision_tower
from vllm_csp.models.conversation import Turn, build_prompt
from vllm_csp.models.projector import build_projector, build_text_hidden_fcs
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.sam.encoder_kind import read_geometry
from vllm_csp.sam.sam import Sam

SAM_PREFIX = "model.visual_model."


@dataclass(frozen=True)
class Reply:
    """Generated ids, and a mask [H, W] for each [SEG]."""

    token_ids: list[int]
    masks: list[Mask]


class Baseline:
    """The networks of a checkpoint, in plain torch and transformers."""

    def __init__(
        self,
        checkpoint: str | Path,
        dtype: str,
        device: str = "cpu",
        hollow: bool = False,
        sam_image_size: int = SAM_IMAGE_SIZE,
    ) -> None:
        """hollow: the checkpoint has no values (`benchmarks.checkpoint`): make them up."""
        folder = Path(checkpoint)
        published = json.loads((folder / "config.json").read_text())
        tower = resolve_vision_tower(
            str(folder), published.get("vision_tower") or published["mm_vision_tower"]
        )
        vision = CLIPVisionConfig.from_pretrained(tower)
        self.config = LisaConfig.from_published(published, vision.to_dict(), tower)
        self.tokenizer = LisaTokenizer.from_pretrained(folder)
        self._eos = self.tokenizer.eos_token_id
        self.device = device
        self.dtype: torch.dtype = getattr(torch, dtype)
        state = dict(_weights(folder))
        self._build(tower, _below(state, SAM_PREFIX), sam_image_size)
        self._load(state)
        self._move()
        if hollow:
            self._make_up(answer_of(folder))

    def _build(self, tower: str, sam: dict[str, Tensor], sam_image_size: int) -> None:
        with torch.device("meta"):
            self.llama = LlamaForCausalLM(self.config.text_config)
            self.projector = build_projector(self.config)
            self.queries = build_text_hidden_fcs(self.config)[0]
        geometry = read_geometry({name: tuple(tensor.shape) for name, tensor in sam.items()})
        self.sam = Sam(replace(geometry, image_size=sam_image_size))
        self.clip = CLIPVisionModel.from_pretrained(tower)
        self._networks = (self.llama, self.projector, self.queries, self.sam, self.clip)

    def _load(self, state: dict[str, Tensor]) -> None:
        self.projector.load_state_dict(_below(state, "model.mm_projector."), assign=True)
        self.queries.load_state_dict(_below(state, "model.text_hidden_fcs.0."), assign=True)
        if self.config.text_config.tie_word_embeddings:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        own = self.llama.state_dict()
        self.llama.load_state_dict({name: state[name] for name in own}, assign=True)
        self.sam.load_weights(_below(state, SAM_PREFIX).items())
        self.sam.require_complete()

    def _move(self) -> None:
        # Frequencies of positions are in no checkpoint, so without values after building on meta;
        # new ones come last, as they stay in fp32.
        del self.llama.model.rotary_emb
        for network in self._networks:
            network.to(device=self.device, dtype=self.dtype).eval()
        frequencies = LlamaRotaryEmbedding(self.config.text_config)
        self.llama.model.rotary_emb = frequencies.to(self.device)

    def _make_up(self, answer: list[int]) -> None:
        made_up: dict[str, Tensor] = {}
        for network in self._networks:
            made_up |= network.state_dict(prefix=f"{type(network).__name__}.")
        make_up(made_up, answer)

    # --- parts ---

    def prompt(self, question: str, answer: Sequence[int] = ()) -> list[int]:
        """Ids of LISA's prompt, one for the image."""
        pieces = build_prompt([Turn("user", question, has_image=True)])
        return [*self.tokenizer.encode_prompt(pieces), *answer]

    def image_rows(self, images: Sequence[Image.Image]) -> Tensor:
        """[B, image tokens, hidden]."""
        size = self.config.vision_config.image_size
        pixels = torch.from_numpy(np.stack([clip_crop(one, size) for one in images]))
        scaled = pixels.to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=self.device).view(3, 1, 1)
            for values in (CLIP_MEAN, CLIP_STD)
        )
        normal = ((scaled - mean) / std).to(self.dtype)
        states = self.clip(pixel_values=normal, output_hidden_states=True).hidden_states
        first = 0 if self.config.mm_vision_select_feature == "cls_patch" else 1
        return self.projector(states[self.config.mm_vision_select_layer][:, first:])

    def embedded(self, ids: Sequence[int], image_rows: Tensor) -> Tensor:
        """[tokens, hidden], image rows in the place of the image's id."""
        place = list(ids).index(self.tokenizer.image_token_id)
        table = self.llama.model.embed_tokens
        before, after = (
            table(torch.tensor(part, device=self.device, dtype=torch.long))
            for part in (ids[:place], ids[place + 1 :])
        )
        return torch.cat((before, image_rows, after))

    def sam_pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """[B, 3, S, S], normalised and padded."""
        side = self.sam.image_size
        return self.sam.preprocess([torch.from_numpy(sam_resize(one, side)) for one in images])

    def seg_rows(self, ids: Sequence[int]) -> list[int]:
        """Indexes of [SEG] among generated ids; row i predicted token i."""
        seg = self.tokenizer.seg_token_id
        return [index for index, token in enumerate(ids) if token == seg]


class ReferenceLoop(Baseline):
    """One question at a time, nothing kept."""

    @torch.inference_mode()
    def ask(
        self, questions: Sequence[tuple[str, Image.Image]], max_tokens: int, force: bool = False
    ) -> list[Reply]:
        """Answer in turn; `force`: the mask of the fixed answer, from one pass."""
        return [self._ask(text, to_rgb(image), max_tokens, force) for text, image in questions]

    def _ask(self, text: str, image: Image.Image, max_tokens: int, force: bool) -> Reply:
        answer: list[int] = []
        while True:
            rows = self.image_rows([image])[0]
            inputs = self.embedded(self.prompt(text, answer), rows)[None]
            hidden = self.llama.model(inputs_embeds=inputs, use_cache=False).last_hidden_state[0]
            if force:
                wanted = hidden[-1:]
                break
            answer.append(int(self.llama.lm_head(hidden[-1]).argmax()))
            if answer[-1] == self._eos or len(answer) == max_tokens:
                # The last pass ends with the row that predicted the last token.
                wanted = hidden[len(hidden) - len(answer) :][self.seg_rows(answer)]
                break
        pixels = self.sam_pixels([image])
        [embedding] = shipped_encode(self.sam.image_encoder, pixels)
        size = (image.height, image.width)
        return Reply(answer, shipped_masks(self.sam, embedding, self.queries(wanted), size))


class HuggingFace(Baseline):
    """All questions in one batch with a KV cache."""

    @torch.inference_mode()
    def ask(
        self, questions: Sequence[tuple[str, Image.Image]], max_tokens: int, force: bool = False
    ) -> list[Reply]:
        """Answer together. Questions about the same image object share its encoders' outputs."""
        images = {id(image): to_rgb(image) for _, image in questions}
        numbers = {key: number for number, key in enumerate(images)}
        pictures = list(images.values())
        rows = self.image_rows(pictures)
        inputs = [
            self.embedded(self.prompt(text), rows[numbers[id(image)]]) for text, image in questions
        ]
        answers, hidden = self._generate(inputs, 1 if force else max_tokens)
        pixels = self.sam_pixels(pictures)
        embeddings = shipped_encode(self.sam.image_encoder, pixels)
        replies = []
        for (_, image), answer, states in zip(questions, answers, hidden, strict=True):
            number = numbers[id(image)]
            wanted = states[:1] if force else states[self.seg_rows(answer)]
            size = (pictures[number].height, pictures[number].width)
            masks = shipped_masks(self.sam, embeddings[number], self.queries(wanted), size)
            replies.append(Reply([] if force else answer, masks))
        return replies

    def _generate(
        self, inputs: Sequence[Tensor], max_tokens: int
    ) -> tuple[list[list[int]], list[Tensor]]:
        """Ids, and per answer the states [tokens, hidden] that predicted them."""
        length = max(len(one) for one in inputs)
        padded = torch.stack([functional.pad(one, (0, 0, length - len(one), 0)) for one in inputs])
        mask = torch.stack(
            [functional.pad(torch.ones(len(one)), (length - len(one), 0)) for one in inputs]
        )
        done = self.llama.generate(
            inputs_embeds=padded,
            attention_mask=mask.to(self.device, torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=self._eos,
            pad_token_id=self.tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_hidden_states=True,
        )
        states = torch.stack([step[-1][:, -1] for step in done.hidden_states], dim=1)
        answers = []
        for ids in done.sequences.tolist():
            end = ids.index(self._eos) + 1 if self._eos in ids else len(ids)
            answers.append(ids[:end])
        return answers, list(states)


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors.torch import load_file

    files: Iterable[Path] = sorted(folder.glob("*.safetensors"))
    for file in files or sorted(folder.glob("pytorch_model*.bin")):
        if file.suffix == ".safetensors":
            yield from load_file(file).items()
        else:
            yield from torch.load(file, weights_only=True, mmap=True).items()


def as_json(masks: Sequence[Mask]) -> list[dict[str, Any]]:
    """Masks as the engine's answers carry them."""
    from vllm_csp.masks import encode_mask

    return [encode_mask(mask, 0.0, number, "rle") for number, mask in enumerate(masks)]
