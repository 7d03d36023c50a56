"""The entry point that vLLM loads."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_OPENTELEMETRY = """
import sys
sys.modules["opentelemetry"] = None
import vllm_csp.serving.endpoint
"""


def test_it_is_there_where_opentelemetry_is_not() -> None:
    """vLLM would go on without our routes, as it takes OpenTelemetry to be optional."""
    subprocess.run([sys.executable, "-c", WITHOUT_OPENTELEMETRY], check=True, timeout=300)
