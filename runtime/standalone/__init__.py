"""What a file written by `emit --standalone` holds besides its model: parts of these modules, with all that they use.

The compiler takes definitions out of them by their source (compiler/targets/numpy/standalone.py); nothing here is run
in place. Each module is a part of the file: settings, threads, data, training.
"""
