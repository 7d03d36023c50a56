"""A backend named `cpu` for Triton, so that vLLM uses Triton on machines without a GPU.

It compiles nothing: with `TRITON_INTERPRET=1` Triton runs kernels in its interpreter, and asks a
backend only whether it is there. vLLM takes Triton as missing on a CPU without this name.
"""
