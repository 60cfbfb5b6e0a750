"""A sample: its recipe, its drawn steps, the imaging chain, and what is prepared once a pair."""
