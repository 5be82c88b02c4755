"""What several targets share: names, the writer of functions, finding regions."""
