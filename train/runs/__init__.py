"""Run folders: settings, logs, trackers, and comparing runs."""
