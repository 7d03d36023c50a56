"""How vLLM finds this package, and what registering does."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from vllm import ModelRegistry
from vllm.model_executor.models.config import MODELS_CONFIG_MAP
from vllm.plugins.endpoint_plugins.interface import EndpointPlugin
from vllm.renderers.registry import RENDERER_REGISTRY
from vllm.tokenizers.registry import TokenizerRegistry
from vllm.transformers_utils import config as vllm_config

import vllm_csp
from vllm_csp.models.hook import LisaEngineHook
from vllm_csp.plugin import ARCHITECTURE, TOKENIZER_MODE, register

ROOT = Path(vllm_csp.__file__).parents[1]


def python(code: str, *flags: str) -> str:
    """What a fresh interpreter prints, on both streams, in order."""
    result = subprocess.run(
        [sys.executable, *flags, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize("group", ["vllm.general_plugins", "vllm.endpoint_plugins"])
def test_entry_points_are_declared_and_load(group: str) -> None:
    [found] = entry_points(group=group, name="vllm_csp")
    loaded = found.load()
    assert callable(loaded)
    if group == "vllm.endpoint_plugins":
        assert isinstance(loaded(), EndpointPlugin)


def test_the_command_is_declared_and_loads() -> None:
    [found] = entry_points(group="console_scripts", name="vllm-csp")
    assert callable(found.load())


def test_everything_is_registered_under_its_name() -> None:
    register()
    assert ARCHITECTURE in ModelRegistry.get_supported_archs()
    assert MODELS_CONFIG_MAP[ARCHITECTURE] is LisaEngineHook
    assert TokenizerRegistry.tokenizers[TOKENIZER_MODE][1] == "LisaTokenizer"
    assert RENDERER_REGISTRY.renderers[TOKENIZER_MODE][1] == "LisaRenderer"


def test_registering_again_changes_nothing() -> None:
    register()
    parser = vllm_config._CONFIG_FORMAT_TO_CONFIG_PARSER["hf"]
    architectures = list(ModelRegistry.get_supported_archs())
    register()
    assert vllm_config._CONFIG_FORMAT_TO_CONFIG_PARSER["hf"] is parser
    assert list(ModelRegistry.get_supported_archs()) == architectures


def test_registering_loads_no_model_and_says_nothing() -> None:
    """vLLM registers in every process; the model is needed in one."""
    code = (
        "import sys, vllm.config, vllm.model_executor.models.registry, vllm_csp.plugin as plugin\n"
        "print('registering', flush=True)\n"
        "plugin.register(); plugin.register()\n"
        "print(sorted(name for name in sys.modules if name in ('segment_anything', "
        "'vllm_csp.models.lisa', 'vllm_csp.models.tokenizer', 'vllm_csp.serving')))"
    )
    lines = python(code).splitlines()
    assert lines[lines.index("registering") + 1 :] == ["[]"]


def test_without_vllm_registering_is_quiet() -> None:
    """An interpreter that sees this package and nothing else that is installed."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from importlib.util import find_spec; assert find_spec('vllm') is None\n"
        "import vllm_csp.plugin as plugin; plugin.register()"
    )
    assert python(code, "-I", "-S") == ""
