"""Designs: a network with its tokenizer, prompt encoder and objective; presets and ablations."""
