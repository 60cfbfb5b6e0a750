"""The fuser without weights: a Laplacian pyramid with the weights of each task."""
