"""Metrics as three published toolboxes compute them, including their errors."""
