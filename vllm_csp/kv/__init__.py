"""Binds token plans to vLLM's paged KV cache: what each stage holds, and where."""
