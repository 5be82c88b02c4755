"""What users read about a program: stages, plans, fusion, profiles, summaries."""
