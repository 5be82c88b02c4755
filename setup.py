"""The packages of a wheel; everything else is in pyproject.toml.

A wheel holds the models and examples inside of the compiler; in the repository they have folders of their own.
"""

from setuptools import find_namespace_packages, setup

SHIPPED = {"compiler.models": "models", "compiler.examples": "examples"}

found = find_namespace_packages(include=["compiler*", "runtime*"], exclude=["*.__pycache__"])
setup(packages=[*found, *SHIPPED], package_dir=SHIPPED)
