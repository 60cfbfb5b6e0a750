"""Prompts: pools of phrases, their grammar, and the sentence of a sample."""
