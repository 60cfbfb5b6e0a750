"""What fused images are good for: detection and segmentation, by networks of transformers, on any method's images."""
