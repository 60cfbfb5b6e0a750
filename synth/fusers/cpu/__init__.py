"""Parts of the fusion networks written for a CPU."""
