"""Sizes of the networks that are trained."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import CLIPVisionConfig, LlamaConfig

IMAGE_SIDE = 224
PATCH = 14
GRID = IMAGE_SIDE // PATCH


@dataclass(frozen=True)
class MiniShape:
    """Sizes of LISA-mini; the defaults fit the 24 MB it may take beside MobileSAM's 19.6.

    Twelve decoder layers, so that stages of image tokens mean something, and heads of 32, the
    smallest that vLLM's attention has on a CPU.
    """

    hidden_size: int = 96
    intermediate_size: int = 256
    layers: int = 12
    heads: int = 3
    vision_hidden_size: int = 96
    vision_intermediate_size: int = 384
    vision_layers: int = 5
    vision_heads: int = 3
    pieces: int = 1020
    # Heads trained to look, (layer, head): from a word at where it holds, from a read-out row at
    # what is asked for.
    word_head: tuple[int, int] = (2, 1)
    target_heads: tuple[tuple[int, int], ...] = ((5, 0), (8, 0))

    def text_config(self, vocab_size: int) -> LlamaConfig:
        """Configuration of the language model."""
        return LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            # Wider than for large models: 0.02 would leave a width of 96 nearly silent.
            initializer_range=0.05,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )

    def vision_config(self) -> CLIPVisionConfig:
        """Configuration of the CLIP tower: 256 tokens, as CLIP-L/14 at 224 pixels gives LISA."""
        return CLIPVisionConfig(
            hidden_size=self.vision_hidden_size,
            intermediate_size=self.vision_intermediate_size,
            num_hidden_layers=self.vision_layers,
            num_attention_heads=self.vision_heads,
            image_size=IMAGE_SIDE,
            patch_size=PATCH,
        )
