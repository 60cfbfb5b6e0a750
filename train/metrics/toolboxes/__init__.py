"""Metrics as three published toolboxes compute them, faults included."""
