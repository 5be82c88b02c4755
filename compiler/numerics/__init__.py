"""Which op of a step first produced a NaN or an infinity: the step is run again and every op is inspected."""
