"""The published 7B and 13B weights map one to one onto the model's parameters and buffers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models.utils import AutoWeightsLoader
from vllm.utils.torch_utils import set_default_torch_dtype

from tests.models.published import Published
from vllm_csp.models.lisa import LISAForCausalLM
from vllm_csp.models.weight_names import VISION_TOWER_PREFIX
from vllm_csp.sam.vit_geometry import VIT_H

SKIPPED = "rotary_emb.inv_freq"
# vLLM rounds the rows of these up, to shard them evenly.
VOCABULARY = ("embed_tokens.weight", "lm_head.weight")
VOCABULARY_MULTIPLE = 64


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A distributed environment of one, as vLLM's layers want."""
    rendezvous = tmp_path_factory.mktemp("rendezvous") / "file"
    init_distributed_environment(1, 0, f"file://{rendezvous}", 0, "gloo")
    with set_current_vllm_config(VllmConfig()):
        initialize_model_parallel(1, 1)
    yield
    destroy_model_parallel()
    destroy_distributed_environment()


@pytest.fixture(scope="module")
def model(published: Published, one_process: None) -> LISAForCausalLM:
    """The real model class on the meta device."""
    config = EngineArgs(
        model=str(published.folder), max_model_len=1024, enforce_eager=True
    ).create_engine_config()
    with (
        set_current_vllm_config(config),
        set_default_torch_dtype(config.model_config.dtype),
        torch.device("meta"),
    ):
        return LISAForCausalLM(vllm_config=config)


def targets(model: LISAForCausalLM) -> dict[str, tuple[int, ...]]:
    """What a checkpoint has to fill: parameters and SAM's buffer; the tower has its own file."""
    weights = dict(model.named_parameters())
    weights |= {
        f"visual_model.{name}": one for name, one in model.visual_model.state_dict().items()
    }
    return {
        name: tuple(weight.shape)
        for name, weight in weights.items()
        if not name.startswith(VISION_TOWER_PREFIX)
    }


def mapped(model: LISAForCausalLM, published: Published) -> Iterator[tuple[str, str]]:
    """Published name -> the parameter it goes into, whole or as one of its stacked parts."""
    stacked = {
        f".{part}.": f".{whole}."
        for whole, parts in model.packed_modules_mapping.items()
        for part in parts
    }
    for name in published.shapes:
        for target in model.hf_to_vllm_mapper.apply_list([name]):
            for part, whole in stacked.items():
                if target.startswith("language_model."):
                    target = target.replace(part, whole)
            yield name, target


def test_every_weight_has_one_place_and_every_place_is_filled(
    model: LISAForCausalLM, published: Published
) -> None:
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for name, target in mapped(model, published):
        sources[target].append(name)
    assert set(sources) == set(targets(model))
    for target, names in sources.items():
        kind = target.rsplit(".", 2)[-2]
        assert len(names) == len(model.packed_modules_mapping.get(kind, [kind])), target


def test_only_inv_freq_is_skipped(model: LISAForCausalLM, published: Published) -> None:
    skipped = set(published.shapes) - {name for name, _ in mapped(model, published)}
    assert skipped == {name for name in published.shapes if name.endswith(SKIPPED)}
    assert len(skipped) == model.config.text_config.num_hidden_layers


def test_shapes_fit(model: LISAForCausalLM, published: Published) -> None:
    """Stacked parts lie below each other."""
    rows: defaultdict[str, int] = defaultdict(int)
    for name, target in mapped(model, published):
        shape, place = published.shapes[name], targets(model)[target]
        assert shape[1:] == place[1:], name
        rows[target] += shape[0]
    for target, place in targets(model).items():
        multiple = VOCABULARY_MULTIPLE if target.endswith(VOCABULARY) else 1
        assert place[0] == -(-rows[target] // multiple) * multiple, target


def test_vllms_loader_fills_everything_but_sam(
    model: LISAForCausalLM, published: Published
) -> None:
    """SAM's own loader checks the same by itself, but not on the meta device."""
    weights = (
        (name, torch.empty(shape, device="meta", dtype=torch.bfloat16))
        for name, shape in published.shapes.items()
        if not name.startswith("model.visual_model.")
    )
    loaded = AutoWeightsLoader(model).load_weights(weights, mapper=model.hf_to_vllm_mapper)
    expected = {name for name in targets(model) if not name.startswith("visual_model.")}
    assert loaded == expected


def test_sam_is_read_off_the_shapes(model: LISAForCausalLM, published: Published) -> None:
    assert model.visual_model.geometry == VIT_H


def test_the_weights_take_no_disk(published: Published) -> None:
    """Or these tests would need 45 GB."""
    files = [file.stat() for file in published.folder.glob("*.safetensors")]
    assert sum(file.st_size for file in files) > 16e9
    assert sum(file.st_blocks * 512 for file in files) < 1e6
