"""Targets: what code is generated for. Each has a folder, and a record in its target.py."""
