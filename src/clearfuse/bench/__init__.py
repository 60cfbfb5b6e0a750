"""Benchmarks: TOML files of recipes and hashes, from which anybody builds the same pixels and scores methods."""
