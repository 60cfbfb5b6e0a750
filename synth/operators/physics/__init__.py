"""What several operators share of physics: air and airlight, falling particles, filling of holes."""
