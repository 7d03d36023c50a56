"""Trains LISA-mini: a LISA small enough to be shipped, in the published checkpoint layout.

Three commands, each of which goes on where it was stopped (`python -m vllm_csp.training --help`):
`embed` runs SAM's image encoder once over photos and scenes, `train` fits the rest to them, `export`
writes the checkpoint. What is trained with which loss: `loop`; what with which pictures: `questions`.
"""
