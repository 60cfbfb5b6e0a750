"""OmniGen of diffusers with LoRA, the network of DiTFuse: what its config, its sequence and its network are."""
