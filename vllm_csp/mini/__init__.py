"""LISA-mini: the small trained checkpoint that comes with the package (README.md is its card)."""

from pathlib import Path

MINI = Path(__file__).parent
"""Folder of the checkpoint, in the layout of the published ones."""
