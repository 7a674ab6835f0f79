"""Selections of leaves: patterns of paths, places in a tree, and changes of what is selected."""
