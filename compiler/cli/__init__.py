"""The command line: flags, commands, the cache of compiled programs."""
