"""A small target, for tests: every op and every region runs in the interpreter."""
