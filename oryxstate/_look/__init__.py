"""Views of models: as text, as a drawing, as a summary, and the difference of two."""
