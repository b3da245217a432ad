"""The shell command `cnncc`: one file per group of verbs, and `shell.py`, which puts them together,
runs the one that was asked for, and turns every failure into a message and an exit code."""

from cnncc.cli.shell import main

__all__ = ["main"]
