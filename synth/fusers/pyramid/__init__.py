"""The weight-free fuser, with one classical method per task."""
