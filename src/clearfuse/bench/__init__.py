"""Benchmarks as recipes and digests: a page of TOML from which anybody builds the same pixels, and scores on them."""
