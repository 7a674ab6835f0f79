"""Modules: frozen dataclasses that are pytrees and hold variables."""
