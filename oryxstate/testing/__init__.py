"""Property-based tests of models: strategies, laws, a pytest plugin."""
