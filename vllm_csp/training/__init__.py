"""Trains LISA-mini: a LISA small enough to be shipped, in the published checkpoint layout.

Three commands (`python -m vllm_csp.training --help`): `embed` runs SAM's image encoder once over
photos and scenes, `train` fits the rest to them, `export` writes the checkpoint. The first two go
on where they were stopped. Which loss trains what: `loop`; what is asked: `questions`.
"""
