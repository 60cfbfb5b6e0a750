"""Builds: from a user's options to shards, receipts, the index and the card."""
