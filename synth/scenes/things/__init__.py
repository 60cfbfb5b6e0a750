"""Objects of the built-in scenes: buildings, vehicles, figures, furniture, plants."""
