"""Data sets: manifests of their layouts, search for pairs in folders, and decoding."""
