"""Files: local folders and object stores, writing by rename, JSON, pictures, checkpoints, the cache."""
