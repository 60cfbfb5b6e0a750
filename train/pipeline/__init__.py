"""Inference: the fusion pipeline, tiling of large images, and fusing files."""
