"""Capture: values from inside a call, by path, and calls whose outputs are edited."""
