"""The check of annotations at run time, which observes modules through the hook of `_module`."""
