"""Which op of a step first gave a NaN or an infinity: the step is run again and every op is looked at."""
