"""Training of fusion models on the shards that synth builds."""
