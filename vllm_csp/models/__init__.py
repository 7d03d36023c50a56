"""LISA for vLLM: configuration, tokens, image processor, model class."""
