"""Training: the loop, checkpoints, run folders, what went wrong."""
