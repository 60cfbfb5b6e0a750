"""The trainer: inputs, losses, optimiser, processes, checkpoints, validation, and the cache of latents."""
