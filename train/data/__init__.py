"""Training data: finds, indexes, mixes and decodes shards; batches by position."""
