"""What the package's sources take from vLLM: imports, and what its classes override."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

from vllm.transformers_utils.config import HFConfigParser
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

import vllm_csp
from vllm_csp.kv.attention import staged_backend
from vllm_csp.models.config import lisa_aware_parser

PACKAGE = Path(vllm_csp.__file__).parent
MADE = [
    staged_backend(CPUAttentionBackend).get_builder_cls(),
    lisa_aware_parser(HFConfigParser),
]
"""Classes that functions make from one of vLLM's."""
LEFT_OUT = {"Parser"}
"""Used where it is made, so out of reach: what it overrides is looked at as what is called is."""

OVERRIDDEN: dict[str, set[str]] = {
    "StagedAttention(vllm.model_executor.layers.attention.attention.Attention)": {
        "get_kv_cache_spec",
    },
    "StagedModelState(vllm.v1.worker.gpu.model_states.default.DefaultModelState)": {
        *("add_request", "prepare_attn", "remove_request"),
    },
    "StageScheduler(vllm.v1.core.sched.async_scheduler.AsyncScheduler)": {
        *("_free_request", "_try_schedule_encoder_inputs", "add_request"),
    },
    "StageSpec(vllm.v1.kv_cache_interface.FullAttentionSpec)": {
        *("is_uniform_with_collection", "merge"),
    },
    "StageManager(vllm.v1.core.single_type_kv_cache_manager.FullAttentionManager)": {
        *("allocate_new_blocks", "get_num_blocks_to_allocate"),
    },
    "StageMetadataBuilder(vllm.v1.attention.backends.cpu_attn.CPUAttentionMetadataBuilder)": {
        *("build", "get_cudagraph_support", "supports_update_block_table"),
    },
    "PublicConnection(vllm.connections.HTTPConnection)": {
        *("async_get_bytes", "get_bytes"),
    },
    "PublicMediaConnector(vllm.multimodal.media.connector.MediaConnector)": {
        *("fetch_image", "fetch_image_async", "load_from_url_async"),
    },
    "LisaImageIO(vllm.multimodal.media.image.ImageMediaIO)": {
        "load_bytes",
    },
    "LisaEngineHook(vllm.model_executor.models.config.VerifyAndUpdateConfig)": {
        *("verify_and_update_config", "verify_and_update_model_config"),
    },
    "LisaAwareConfigParser(vllm.transformers_utils.config.HFConfigParser)": {
        "parse",
    },
    "Int8Method(vllm.model_executor.layers.quantization.base_config.QuantizeMethodBase)": {
        *("apply", "create_weights", "process_weights_after_loading"),
    },
    "LISAForCausalLM(vllm.model_executor.models.interfaces.SupportsMultiModal)": {
        *("embed_input_ids", "embed_multimodal", "get_placeholder_str"),
    },
    "LisaDataParser(vllm.multimodal.parse.MultiModalDataParser)": {
        "_parse_image_data",
    },
    "LisaProcessingInfo(vllm.multimodal.processing.context.BaseProcessingInfo)": {
        *("get_data_parser", "get_hf_config", "get_mm_max_tokens_per_item"),
        *("get_supported_mm_limits", "get_supported_mm_processor_kwargs"),
    },
    "LisaDummyInputs(vllm.multimodal.processing.dummy_inputs.BaseDummyInputsBuilder)": {
        *("get_dummy_mm_data", "get_dummy_text"),
    },
    "LisaProcessor(vllm.multimodal.processing.processor.BaseMultiModalProcessor)": {
        *("_call_hf_processor", "_get_mm_fields_config", "_get_prompt_updates"),
    },
    "LisaRenderer(vllm.renderers.base.BaseRenderer)": {
        *("render_messages", "render_messages_async"),
    },
    "LisaTokenizer(vllm.tokenizers.protocol.TokenizerLike)": {
        *("__call__", "apply_chat_template", "decode", "encode", "from_pretrained"),
        *("convert_ids_to_tokens", "convert_tokens_to_ids", "convert_tokens_to_string"),
        *("all_special_ids", "all_special_tokens", "num_special_tokens_to_add"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "max_token_id", "vocab_size"),
        *("get_added_vocab", "get_vocab", "is_fast", "max_chars_per_token", "truncation_side"),
    },
    "StagedLlamaAttention(vllm.model_executor.models.llama.LlamaAttention)": {
        "forward",
    },
    "StagedLlamaModel(vllm.model_executor.models.llama.LlamaModel)": {
        "forward",
    },
    "StagedLlamaForCausalLM(vllm.model_executor.models.llama.LlamaForCausalLM)": {
        "_init_model",
    },
    "ReadoutProcessor(vllm.v1.sample.logits_processor.interface.LogitsProcessor)": {
        *("apply", "is_argmax_invariant", "update_state", "validate_params"),
    },
    "ReadoutProcessor(vllm.v1.worker.gpu.sample.logits_processor.interface.LogitsProcessor)": {
        *("add_request", "apply", "validate_params"),
    },
    "SegmentationChat(vllm.entrypoints.openai.chat_completion.serving.OpenAIServingChat)": {
        *("create_chat_completion", "render_chat_request"),
        *("chat_completion_full_generator", "chat_completion_stream_generator"),
    },
}
"""By class and parent, beside constructors."""


def modules() -> list[str]:
    """All modules of the package, those behind the link to `serving` too."""
    found = pkgutil.walk_packages([str(PACKAGE)], "vllm_csp.")
    return sorted({module.name for module in found})


def source(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return ast.parse(Path(spec.origin).read_text())


def imported_names() -> list[tuple[str, str]]:
    """(module, name) of every import from vLLM, for type checkers and in functions too."""
    found = {
        (node.module, alias.name)
        for module in modules()
        for node in ast.walk(source(module))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm"
        for alias in node.names
    }
    return sorted((module or "", name) for module, name in found)


def our_classes() -> Iterator[type]:
    for module in modules():
        for one in vars(importlib.import_module(module)).values():
            if inspect.isclass(one) and one.__module__ == module:
                yield one
    yield from MADE


def defined(ours: type) -> Iterator[str]:
    """What the body of a class defines, without what decorators and metaclasses add."""
    [written] = ast.parse(textwrap.dedent(inspect.getsource(ours))).body
    assert isinstance(written, ast.ClassDef)
    for one in written.body:
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield one.name
        elif isinstance(one, ast.Assign):
            yield from (ast.unparse(target) for target in one.targets)
        elif isinstance(one, ast.AnnAssign) and one.value is not None:
            yield ast.unparse(one.target)


def overrides() -> Iterator[tuple[type, type, str, type]]:
    """(our class, parent, name, vLLM class that has it), for each parent of our classes."""
    for ours in our_classes():
        for parent in ours.__bases__:
            for name in sorted(set(defined(ours)) - {"__init__"}):
                owner = next((one for one in parent.__mro__ if name in vars(one)), object)
                if owner.__module__.startswith("vllm."):
                    yield ours, parent, name, owner
