"""Named state as effects: reads and writes that mean the same under every JAX transformation."""
