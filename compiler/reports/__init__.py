"""Reports for users about a program: stages, memory plans, fusion, profiles, summaries."""
