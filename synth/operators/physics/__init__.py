"""What several operators share of physics: air, falling particles, the ground, filling of holes."""
