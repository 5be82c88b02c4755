"""The commands, one file per family. They call the driver and the runtime, and print.

`compiler.cli.flags` lists them; a file is imported only when one of its commands runs.
"""
