"""What a person looks at: the summary of a model, and the difference of two."""
