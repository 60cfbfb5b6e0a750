"""What stands in the built-in scenes: buildings, vehicles, figures, furniture, plants."""
