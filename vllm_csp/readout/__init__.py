"""Mask queries of running requests: recorded when tokens are sampled, kept until fetched."""
