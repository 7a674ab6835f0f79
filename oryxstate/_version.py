"""The version of this package, which the build and `python -m oryxstate` read."""

__version__ = "0.2.0"
