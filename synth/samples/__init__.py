"""Samples: recipes, the draw of crop and steps, the imaging chain, preparation of pairs and rendering."""
