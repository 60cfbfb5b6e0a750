"""The light of a scene, for all that weather does to it: ambient light, lamps, and their glow in the air."""
