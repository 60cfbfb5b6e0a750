"""Data of training: shards found, indexed, mixed and decoded; batches by position."""
