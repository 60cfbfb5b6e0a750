"""Training: inputs, losses, optimizer, distributed ranks, checkpoints, validation, and the cache of latents."""
