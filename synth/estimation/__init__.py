"""What is wrong with a picture, told from the picture alone, in the units of the operators."""
