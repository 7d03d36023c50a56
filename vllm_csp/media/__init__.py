"""Fetching images from addresses that clients name: public ones only, and not too large."""
