"""The renderer of the built-in scenes: faces, views, shading, shadows, lamps, sky, focus, imaging."""
