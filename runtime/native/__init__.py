"""Programs in C: compiling, loading and running them, and the C text that all of them include (*.h)."""
