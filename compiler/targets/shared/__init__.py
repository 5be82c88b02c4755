"""Code that targets share: names, the writer of functions, and finding regions."""
