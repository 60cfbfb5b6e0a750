"""What an evaluation compares: fusers, restorers with fusers, networks, and others' results."""
