"""Depth: networks, maps of the user's own, the built-in scenes' own, and a prior without weights."""
