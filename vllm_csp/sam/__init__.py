"""SAM, the mask side of LISA: image encoder, text-prompted mask decoder, post-processing.

Nothing is imported here, so that `geometry` can be read without torch.
"""
