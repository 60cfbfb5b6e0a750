"""Looking at builds: verify, inspect, preview, push."""
