"""Weights: where they come from, networks that others trained, the hub, tensors on disk."""
