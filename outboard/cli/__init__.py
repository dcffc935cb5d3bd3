"""The command line: `outboard master SONG -o DIR` and its kin. Every command is a thin client of the same job API that a cluster serves."""

from outboard.cli.app import main

__all__ = ["main"]
