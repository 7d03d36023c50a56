"""What GPUs run, on a CPU: model runner V2 and vLLM's Triton kernels, in Triton's interpreter."""
