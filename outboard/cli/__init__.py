"""The command line: `outboard master SONG -o DIR` and its kin. Each is a client of the job API."""

from outboard.cli.app import main

__all__ = ["main"]
