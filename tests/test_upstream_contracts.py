"""What this package takes for granted in vLLM beyond its public API: upgrades show here first."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel
from vllm import LLM, ModelRegistry, SamplingParams
from vllm.config import ModelConfig, ParallelConfig, VllmConfig
from vllm.distributed import parallel_state
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion import api_router
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.serve.engine.protocol import UsageInfo
from vllm.entrypoints.serve.middleware.authenticate import GUARDED_PREFIX
from vllm.exceptions import VLLMValidationError
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.clip import CLIPVisionModel
from vllm.model_executor.models.config import MODELS_CONFIG_MAP
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model
from vllm.plugins import load_endpoint_plugins
from vllm.renderers.chat_utils import parse_chat_messages, parse_chat_messages_async
from vllm.renderers.registry import RENDERER_REGISTRY
from vllm.tokenizers.registry import TokenizerRegistry
from vllm.transformers_utils import config as vllm_config
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.core_client import AsyncMPClient
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

from tests.upstream import LEFT_OUT, MADE, OVERRIDDEN, imported_names, modules, overrides, source
from vllm_csp.serving.endpoint import SegmentationEndpoint
from vllm_csp.serving.protocol import SegmentationMessage


def test_the_scan_finds_imports() -> None:
    names = imported_names()
    assert ("vllm.v1.sample.logits_processor.interface", "BatchUpdate") in names
    assert ("vllm.engine.protocol", "EngineClient") in names


@pytest.mark.parametrize(("module", "name"), imported_names())
def test_imported_names_exist(module: str, name: str) -> None:
    loaded = importlib.import_module(module)
    assert hasattr(loaded, name) or importlib.util.find_spec(f"{module}.{name}") is not None


def test_classes_within_functions_and_classes_are_looked_at() -> None:
    written = {
        node.name
        for module in modules()
        for outer in ast.walk(source(module))
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for node in ast.walk(outer)
        if isinstance(node, ast.ClassDef) and node is not outer and node.bases
    }
    assert written == LEFT_OUT | {one.__name__ for one in MADE}


def test_we_override_what_is_written_here() -> None:
    """A name that vLLM no longer has is missing in `found`."""
    found: dict[str, set[str]] = {}
    for ours, parent, name, _ in overrides():
        derived = f"{ours.__name__}({parent.__module__}.{parent.__name__})"
        found.setdefault(derived, set()).add(name)
    assert found == OVERRIDDEN


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def is_method(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod))


METHODS = [
    pytest.param(ours, name, base, id=f"{ours.__name__}.{name}<-{base.__name__}")
    for ours, _, name, base in overrides()
    if is_method(vars(ours)[name]) and is_method(vars(base)[name])
]


@pytest.mark.parametrize(("ours", "name", "base"), METHODS)
def test_overridden_methods_take_what_vllm_passes(ours: type, name: str, base: type) -> None:
    mine, theirs = parameters(getattr(ours, name)), parameters(getattr(base, name))
    kinds = {parameter.kind for parameter in mine}
    open_ended = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    named = {parameter.name for parameter in mine}
    expected = {one.name for one in theirs if one.kind not in open_ended}
    missing = [one for one in theirs if one.name in expected - named]
    # What has a default comes by keyword.
    by_keyword = inspect.Parameter.VAR_KEYWORD in kinds and not any(map(is_required, missing))
    assert not missing or open_ended <= kinds or by_keyword, missing
    for parameter in mine:
        if parameter.name not in expected and parameter.kind not in open_ended:
            assert not is_required(parameter), parameter
    same = [one.name for one in theirs if one.name in named and one.kind not in open_ended]
    assert same == [one.name for one in mine if one.name in same]


CALLED: list[tuple[Callable[..., Any], list[str]]] = [
    (api_router.create_chat_completion, ["request", "raw_request"]),
    (OpenAIServingChat._create_chat_completion, ["request", "raw_request"]),
    (OpenAIServingChat.create_streaming_error_response, ["message"]),
    (EngineClient.collective_rpc, ["method", "timeout", "args", "kwargs"]),
    (LLM.collective_rpc, ["method", "timeout", "args", "kwargs"]),
    (AsyncMPClient._call_utility_async, ["method", "args", "engine"]),
    (LLM.chat, ["messages", "sampling_params", "use_tqdm", "chat_template_kwargs"]),
    (parse_chat_messages, ["content_format", "media_io_kwargs", "mm_processor_kwargs"]),
    (parse_chat_messages_async, ["content_format", "media_io_kwargs", "mm_processor_kwargs"]),
    (AutoWeightsLoader.load_weights, ["weights", "mapper"]),
    (init_vllm_registered_model, ["vllm_config", "hf_config", "prefix", "architectures"]),
    (SupportsMultiModal.configure_mm_token_handling, ["vocab_size", "mm_token_ids"]),
    (SupportsMultiModal._mark_tower_model, ["vllm_config", "modalities"]),
    (SupportsMultiModal._mark_language_model, ["vllm_config"]),
    (CLIPVisionModel.forward, ["feature_select_strategy"]),
    (CLIPVisionModel.__init__, ["num_hidden_layers_override", "require_post_norm", "prefix"]),
    (FlexibleArgumentParser.error, ["message"]),
    (ModelRegistry.register_model, ["model_arch", "model_cls"]),
    (parallel_state.get_tensor_model_parallel_rank, []),
]


@pytest.mark.parametrize(
    ("function", "names"), CALLED, ids=[function.__qualname__ for function, _ in CALLED]
)
def test_called_functions_take_what_we_pass(function: Callable[..., Any], names: list[str]) -> None:
    assert set(names) <= {parameter.name for parameter in parameters(function)}


HAS: list[tuple[type, set[str]]] = [
    (BatchUpdate, {"removed", "added", "moved"}),
    (LogitsContext, {"idx_mapping_np", "input_ids", "seq_lens_upper_bound_np"}),
    (LogitsProcRequestState, {"prompt_len", "prefill_len"}),
    (DefaultModelLoader.Source, {"model_or_path", "revision", "prefix"}),
    (ParallelConfig, {"worker_extension_cls", "pipeline_parallel_size"}),
    (ModelConfig, {"logits_processors", "tokenizer_mode", "multimodal_config"}),
    (VllmConfig, {"additional_config", "instance_id", "parallel_config", "model_config"}),
]


@pytest.mark.parametrize(("owner", "names"), HAS, ids=[owner.__name__ for owner, _ in HAS])
def test_fields_that_we_read_or_set(owner: Any, names: set[str]) -> None:
    assert names <= {field.name for field in fields(owner)}


@pytest.mark.parametrize("name", ["extra_args", "prompt_logprobs", "structured_outputs", "n"])
def test_fields_of_sampling_params(name: str) -> None:
    assert hasattr(SamplingParams(), name)


def test_moves_of_the_batch_have_two_kinds() -> None:
    assert {one.name for one in MoveDirectionality} == {"SWAP", "UNIDIRECTIONAL"}


def test_registries_are_mappings_that_we_can_look_into() -> None:
    assert isinstance(MODELS_CONFIG_MAP, dict)
    parser = vllm_config._CONFIG_FORMAT_TO_CONFIG_PARSER["hf"]
    assert {"model", "trust_remote_code", "revision"} <= set(
        inspect.signature(parser.parse).parameters
    )
    assert isinstance(TokenizerRegistry.tokenizers, dict)
    assert isinstance(RENDERER_REGISTRY.renderers, dict)
    assert "LlamaForCausalLM" in ModelRegistry.get_supported_archs()


def test_request_options_become_extra_arguments() -> None:
    request = ChatCompletionRequest(
        model="lisa", messages=[{"role": "user", "content": "Hi"}], vllm_xargs={"csp_request": "a"}
    )
    assert request.to_sampling_params(8, {}).extra_args == {"csp_request": "a"}


def test_fields_of_a_messages_subclass_reach_the_client() -> None:
    message = SegmentationMessage(role="assistant", content="Sure", masks=[{"area": 5}])
    assert isinstance(message, ChatMessage)
    choice = ChatCompletionResponseChoice(index=0, message=ChatMessage(role="assistant"))
    choice.message = message
    usage = UsageInfo(prompt_tokens=1, total_tokens=1)
    response = ChatCompletionResponse(model="lisa", choices=[choice], usage=usage)
    assert response.model_dump()["choices"][0]["message"]["masks"] == [{"area": 5}]


def test_further_fields_of_a_response_reach_the_client() -> None:
    usage = UsageInfo(prompt_tokens=1, total_tokens=1)
    response = ChatCompletionResponse(model="lisa", choices=[], usage=usage)
    response.segmentation = {"policy": "dense"}
    assert response.model_dump()["segmentation"] == {"policy": "dense"}


@pytest.mark.parametrize(("reason", "ends"), [("stop", True), (None, False)])
def test_the_last_chunk_is_found_by_its_text(reason: str | None, ends: bool) -> None:
    """And not by that of an answer, whose quotation marks are escaped."""
    delta = DeltaMessage(content='"finish_reason":"stop"')
    choice = ChatCompletionResponseStreamChoice(index=0, delta=delta, finish_reason=reason)
    chunk = ChatCompletionStreamResponse(model="lisa", choices=[choice])
    text = chunk.model_dump_json(exclude_unset=True)
    assert ('"finish_reason":"' in text) == ends
    assert json.loads(text)["choices"][0]["delta"]["content"] == delta.content


def test_requests_may_be_extended_by_a_subclass() -> None:
    assert issubclass(ChatCompletionRequest, BaseModel)
    assert not ChatCompletionRequest.model_config.get("frozen")


def test_the_key_guards_our_paths() -> None:
    assert "/v1/chat/completions".startswith(GUARDED_PREFIX)


def test_refusals_name_their_parameter() -> None:
    error = VLLMValidationError("why", parameter="segmentation")
    assert error.parameter == "segmentation"
    assert "why" in str(error)


def test_endpoint_plugins_load_only_when_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "vllm_csp")
    assert [type(one) for one in load_endpoint_plugins(("generate",))] == [SegmentationEndpoint]
    monkeypatch.delenv("VLLM_PLUGINS")
    assert load_endpoint_plugins(("generate",)) == []
