"""Whether the server works: proven by making masks, watched, and said on /ready and /health."""
