"""The parts of a standalone script (`emit --standalone`) that are not its model: settings, threads, data, training.

The compiler copies the source of these definitions and of all that they use into the script
(compiler/targets/numpy/standalone.py). Nothing here runs in place.
"""
