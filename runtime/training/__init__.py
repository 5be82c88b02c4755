"""Training: the loop, checkpoints, run folders, numerical problems."""
