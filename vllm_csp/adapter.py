"""Every registration that reaches into vLLM; docs/CONTRACTS.md lists the names used here."""

from __future__ import annotations

from typing import Any


def register_model(architecture: str, target: str) -> None:
    """Register the model class lazily (`module:Class`), once per process."""
    from vllm import ModelRegistry

    if architecture not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(architecture, target)


def register_config_parser() -> None:
    """Read LISA's `config.json` as what it is.

    Symptom without it: `AutoConfig` maps its `model_type` "llava" to a `LlavaConfig` full of
    defaults (wrong vocabulary and sizes). The parser of the "hf" format is replaced by a subclass
    that takes only configurations whose architecture is ours and leaves every other one to vLLM.
    It can go when vLLM lets a plugin choose the parser per architecture.
    """
    from vllm.transformers_utils import config as vllm_config

    from vllm_csp.models.config import lisa_aware_parser

    parsers: dict[Any, Any] = vllm_config._CONFIG_FORMAT_TO_CONFIG_PARSER
    if not getattr(parsers["hf"], "reads_lisa", False):
        # `register_config_parser` would do the same and log a warning in every process.
        parsers["hf"] = lisa_aware_parser(parsers["hf"])


def register_config_hook(architecture: str) -> None:
    """Let the model set the engine flags that it needs."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from vllm_csp.models.hook import LisaEngineHook

    MODELS_CONFIG_MAP[architecture] = LisaEngineHook


def register_media_connector(name: str) -> None:
    """Make the connector that fetches from public addresses only known; imported when used."""
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

    def load(*args: Any, **kwargs: Any) -> Any:
        from vllm_csp.media.connector import PublicMediaConnector

        return PublicMediaConnector(*args, **kwargs)

    MEDIA_CONNECTOR_REGISTRY.name2class[name] = load


def register_stage_spec() -> None:
    """Make the KV cache spec of a stage known, in every process."""
    from vllm_csp.kv.spec import register_stage_spec

    register_stage_spec()


def register_tokenizer(mode: str) -> None:
    """Register LISA's tokenizer and the chat renderer that goes with it."""
    from vllm.renderers.registry import RENDERER_REGISTRY
    from vllm.tokenizers.registry import TokenizerRegistry

    if mode not in TokenizerRegistry.tokenizers:
        TokenizerRegistry.register(mode, "vllm_csp.models.tokenizer", "LisaTokenizer")
    if mode not in RENDERER_REGISTRY.renderers:
        RENDERER_REGISTRY.register(mode, "vllm_csp.models.renderer", "LisaRenderer")
