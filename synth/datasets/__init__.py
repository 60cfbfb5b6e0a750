"""Data sets: manifests of layouts, the pairs that a folder holds, and decoding."""
