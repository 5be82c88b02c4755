"""The model language: its grammar, the syntax tree, the parser and the printer of trees."""
