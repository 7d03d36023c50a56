"""Entry point of `vllm.general_plugins`: tells vLLM what this package adds.

vLLM calls `register` in every process, possibly more than once. It stays cheap: only names are
registered, nothing heavy is imported.
"""

from importlib.util import find_spec

ARCHITECTURE = "LISAForCausalLM"
TOKENIZER_MODE = "lisa"
MEDIA_CONNECTOR = "vllm_csp"


def register() -> None:
    """Register model class, configuration parser, tokenizer and renderer; idempotent.

    Returns quietly when vLLM is not installed: the client parts of the package work without it.
    """
    if find_spec("vllm") is None:
        return
    from vllm_csp import adapter, orphans

    orphans.end_with_parent()
    adapter.register_model(ARCHITECTURE, "vllm_csp.models.lisa:LISAForCausalLM")
    adapter.register_config_parser()
    adapter.register_config_hook(ARCHITECTURE)
    adapter.register_tokenizer(TOKENIZER_MODE)
    adapter.register_stage_spec()
    adapter.register_media_connector(MEDIA_CONNECTOR)
