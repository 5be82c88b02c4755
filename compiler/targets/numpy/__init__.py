"""NumPy source: runs on any CPU."""
