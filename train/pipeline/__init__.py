"""Inference: a model with its parts, images of any size, files."""
