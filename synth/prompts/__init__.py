"""Prompts: pools of phrases, their grammar, and the composition of a sample's instruction."""
