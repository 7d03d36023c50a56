"""Serve reasoning-segmentation models on vLLM: answers as text and masks."""

__version__ = "0.1.0"
