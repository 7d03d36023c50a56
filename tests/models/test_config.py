"""`config.json` read by vLLM's own `get_config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, LlavaConfig, PretrainedConfig
from vllm.transformers_utils.config import get_config

from tests.models.published import CLIP_CONFIG, Published, published_config, write_config
from vllm_csp.models.config import LisaConfig, resolve_vision_tower

SIZES = {
    "7b": {
        "vocab_size": 32004,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
    },
    "13b": {
        "vocab_size": 32003,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
    },
}


def read(folder: Path) -> PretrainedConfig:
    return get_config(str(folder), trust_remote_code=False)


def test_published_sizes_are_read(published: Published) -> None:
    config = read(published.folder)
    assert isinstance(config, LisaConfig)
    text = config.text_config
    assert {name: getattr(text, name) for name in SIZES[published.size]} == SIZES[published.size]
    assert config.architectures == ["LISAForCausalLM"]
    assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (1, 2, 0)
    assert not config.tie_word_embeddings
    assert (config.out_dim, config.mm_hidden_size, config.mm_vision_select_layer) == (256, 1024, -2)
    assert (config.mm_vision_select_feature, config.mm_projector_type) == ("patch", "linear")
    assert config.image_token_index == text.vocab_size
    assert config.num_image_tokens == 256


def test_the_vision_tower_beside_the_weights_wins_over_a_hub_id(published: Published) -> None:
    config = read(published.folder)
    assert config.vision_tower == str(published.folder / "openai/clip-vit-large-patch14")
    named = ("hidden_size", "num_hidden_layers", "patch_size", "image_size")
    found = {name: getattr(config.vision_config, name) for name in named}
    assert found == {name: CLIP_CONFIG[name] for name in named}


def test_a_vision_tower_not_beside_the_weights_is_a_hub_id(tmp_path: Path) -> None:
    assert resolve_vision_tower(str(tmp_path), "openai/clip") == "openai/clip"


def test_plain_autoconfig_would_get_it_wrong(published: Published) -> None:
    """Why the parser exists; it can go when this test fails."""
    config = AutoConfig.from_pretrained(published.folder)
    assert type(config) is LlavaConfig
    assert config.text_config.vocab_size != published_config(published.size)["vocab_size"]


@pytest.mark.parametrize("architecture", ["LlavaForConditionalGeneration", "LlavaLlamaForCausalLM"])
def test_other_llava_models_are_untouched(tmp_path: Path, architecture: str) -> None:
    config = LlavaConfig(architectures=[architecture])
    config.text_config.vocab_size = 32064
    config.save_pretrained(tmp_path)
    found = read(tmp_path)
    assert type(found) is LlavaConfig
    assert found.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()


@pytest.mark.parametrize("mark", [{"bbox_token_idx": 32002}, {"with_region": True}])
def test_glamm_is_refused_by_name(tmp_path: Path, mark: dict[str, Any]) -> None:
    write_config(tmp_path, {**published_config("7b"), **mark})
    with pytest.raises(ValueError, match="this is a GLaMM checkpoint"):
        read(tmp_path)


def test_a_config_without_vision_tower_is_refused(tmp_path: Path) -> None:
    config = published_config("7b")
    del config["vision_tower"], config["mm_vision_tower"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="names no `vision_tower`"):
        read(tmp_path)


def test_the_cls_row_counts_when_it_is_kept(tmp_path: Path) -> None:
    write_config(tmp_path, {**published_config("7b"), "mm_vision_select_feature": "cls_patch"})
    config = read(tmp_path)
    assert isinstance(config, LisaConfig)
    assert config.num_image_tokens == 257
