"""Readers, one file per format; each gives photos with their questions."""
