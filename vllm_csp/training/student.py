"""The networks that are trained: CLIP tower, projector, Llama, query head, mask decoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlamaForCausalLM

from vllm_csp.models.clip_pixels import normalise_clip
from vllm_csp.models.projector import query_head
from vllm_csp.sam.mask_decoder import MaskDecoder
from vllm_csp.sam.prompt_encoder import PromptEncoder
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
from vllm_csp.training.attention import NAME, Looks, attention_mask
from vllm_csp.training.packing import Packed
from vllm_csp.training.shape import GRID, MiniShape

GRID_CHANNELS = 64
EMBEDDING_STD = 0.3
POSITION_SCALE = 2.0
POSITIONS = "embeddings.position_embedding.weight"
QUERY_CHANNELS = MOBILE_SAM.out_channels


@dataclass(frozen=True)
class Prediction:
    """Logits [A, vocabulary] of the rows with a label, queries [R, 256], grids [R, 16, 16].

    words [B, W, 16, 16]: which word holds in which patch; meanings [R, W]: which words hold of what
    a query asks for; places [R, 2]: where that is, (x, y) in 0..1; row_places [B, 256, 2]: where
    each image row says it is; looks: `attention.Looks.weights`.
    """

    logits: Tensor
    labels: Tensor
    queries: Tensor
    grids: Tensor
    words: Tensor
    meanings: Tensor
    places: Tensor
    row_places: Tensor
    looks: Mapping[tuple[int, int], Tensor]


class Student(nn.Module):
    """LISA-mini without SAM's image encoder, which stays as it is."""

    def __init__(
        self, shape: MiniShape, vocab_size: int, words: Sequence[Sequence[int]] = ()
    ) -> None:
        """words: ids of the pieces of each word that patches are trained to show."""
        super().__init__()
        self.shape = shape
        self.vision_tower = CLIPVisionModel(shape.vision_config())
        positions = self.vision_tower.get_parameter(POSITIONS)
        positions.data[1:] += _positions(shape.vision_hidden_size)
        self.mm_projector = nn.Linear(shape.vision_hidden_size, shape.hidden_size)
        self.language_model = LlamaForCausalLM(shape.text_config(vocab_size))
        self.language_model.set_attn_implementation(NAME)
        _initialise(self.language_model)
        self.text_hidden_fcs = query_head(shape.hidden_size, QUERY_CHANNELS)
        self.prompt_encoder = PromptEncoder(MOBILE_SAM).requires_grad_(False)
        self.mask_decoder = MaskDecoder(MOBILE_SAM)
        # Only of use while training: what does a patch show, what does a query mean, and where?
        self.register_buffer("pieces_of_words", _piece_shares(words, vocab_size), persistent=False)
        self.words_scale = nn.Parameter(torch.ones(()))
        self.words_bias = nn.Parameter(torch.full((len(words),), -4.0))  # Few hold anywhere.
        self.meaning_of_query = nn.Linear(QUERY_CHANNELS, len(words))
        self.place_of_query = nn.Linear(QUERY_CHANNELS, 2)
        self.place_of_row = nn.Linear(shape.hidden_size, 2)
        self.grid_of_image = nn.Linear(shape.vision_hidden_size, GRID_CHANNELS)
        self.grid_of_query = nn.Linear(QUERY_CHANNELS, GRID_CHANNELS)

    def forward(
        self, batch: Packed, before: list[int], after: list[int], blind: bool = False
    ) -> Prediction:
        """Run a packed batch; `before` and `after` are the ids around the image.

        blind: leave the image rows out of the language model, which then learns what words mean.
        """
        vision = self.vision_tower(pixel_values=normalise_clip(batch.clip_pixels))
        patches = vision.last_hidden_state[:, 1:]
        image_rows = self.mm_projector(patches)
        hidden, looks = self._decode(batch, image_rows[:, : 0 if blind else None], before, after)
        rows = hidden[batch.picture, batch.row]
        queries = self.text_hidden_fcs(rows).float()
        keys = self.grid_of_image(patches).float()[batch.picture]
        grids = torch.einsum("rpc,rc->rp", keys, self.grid_of_query(queries).float())
        labelled = batch.labels >= 0
        logits = self.language_model.lm_head(hidden[labelled]).float()
        shape = (-1, GRID, GRID)
        grids = grids.view(shape) / math.sqrt(GRID_CHANNELS)
        words = self._words(image_rows).transpose(1, 2)
        words = words.view(len(words), -1, GRID, GRID)
        meanings = self.meaning_of_query(queries).float()
        places = self.place_of_query(queries).float()
        labels = batch.labels[labelled]
        row_places = self.place_of_row(image_rows).float()
        return Prediction(
            logits, labels, queries, grids, words, meanings, places, row_places, looks
        )

    def _words(self, image_rows: Tensor) -> Tensor:
        """Logits [B, 256, W] of the words that image rows show.

        An image row is to look like the embeddings of what it shows: attention that ties equal
        words to each other then ties words to patches.
        """
        table = self.language_model.model.embed_tokens.weight
        vectors = self.get_buffer("pieces_of_words") @ table
        return (image_rows @ vectors.T).float() * self.words_scale + self.words_bias

    def _decode(
        self, batch: Packed, image_rows: Tensor, before: list[int], after: list[int]
    ) -> tuple[Tensor, Mapping[tuple[int, int], Tensor]]:
        """Final-norm hidden states of the segments' rows, and where supervised heads look."""
        table = self.language_model.model.embed_tokens
        device, size = image_rows.device, len(image_rows)
        text = [
            table(torch.tensor(ids, device=device)).expand(size, -1, -1) for ids in (before, after)
        ]
        rows = torch.cat([text[0], image_rows, text[1], table(batch.segments)], dim=1)
        prefix = rows.shape[1] - batch.segments.shape[1]
        start = torch.arange(prefix, device=device).expand(size, -1)
        image = slice(len(before), prefix - len(after))
        heads = (self.shape.word_head, *self.shape.target_heads)
        layers, segments = self.language_model.model.layers, batch.segments.shape[1]
        with Looks(layers, heads, image, segments) as looks:
            output = self.language_model.model(
                inputs_embeds=rows,
                position_ids=torch.cat([start, prefix + batch.positions], dim=1),
                attention_mask=attention_mask(batch.owner, prefix),
                use_cache=False,
            )
        return output.last_hidden_state[:, prefix:], looks.weights if image_rows.shape[1] else {}

    def load_sam(self, weights: Mapping[str, Tensor]) -> None:
        """Start from a published SAM: `prompt_encoder.*` and `mask_decoder.*` of `weights`."""
        for name in ("prompt_encoder", "mask_decoder"):
            start = f"{name}."
            own = {key[len(start) :]: w for key, w in weights.items() if key.startswith(start)}
            getattr(self, name).load_state_dict(own)

    @cached_property
    def position_encoding(self) -> Tensor:
        """SAM's encoding of the grid [1, 256, 64, 64], as coarse as the engine's bf16 makes it."""
        layer = copy.deepcopy(self.prompt_encoder.pe_layer).bfloat16()
        return layer((64, 64)).unsqueeze(0).float()

    def masks(self, embeddings: Tensor, queries: Tensor) -> Tensor:
        """Mask logits [Q, 256, 256] of queries [Q, 256] on image embeddings [Q, 256, 64, 64]."""
        sparse, dense = self.prompt_encoder(queries)
        logits = self.mask_decoder(embeddings, self.position_encoding, sparse, dense)
        return logits.float()

    def point_prompts(self, points: Tensor) -> Tensor:
        """SAM's prompt [P, 256] for a foreground point (x, y) in 0..1, fp32."""
        matrix = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.float()
        phase = 2 * math.pi * ((2 * points - 1) @ matrix)
        encoded = torch.cat((phase.sin(), phase.cos()), dim=-1)
        foreground = self.prompt_encoder.get_parameter("point_embeddings.1.weight")
        return encoded + foreground.float()


def _initialise(model: LlamaForCausalLM) -> None:
    """Start with layers that add nothing to embeddings that are loud enough to be told apart.

    With the usual small embeddings the first layers drown a word among 256 image rows.
    """
    nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)


def _positions(width: int) -> Tensor:
    """Sine and cosine of patch centres [256, width], as loud as the embeddings of patches get.

    With CLIP's own start, a tenth as loud, patches do not know where they are for thousands of
    steps.
    """
    cycles = 0.5 * 16 ** torch.linspace(0, 1, width // 4)
    centres = (torch.arange(GRID) + 0.5) / GRID
    phase = 2 * math.pi * torch.cartesian_prod(centres, centres)[:, :, None] * cycles
    return POSITION_SCALE * torch.cat((phase.sin(), phase.cos()), dim=-1).flatten(1)


def _piece_shares(words: Sequence[Sequence[int]], vocab_size: int) -> Tensor:
    """[W, vocabulary]: what each piece contributes to a word."""
    shares = torch.zeros(len(words), vocab_size)
    for place, pieces in enumerate(words):
        shares[place, list(pieces)] = 1 / max(1, len(pieces))
    return shares
