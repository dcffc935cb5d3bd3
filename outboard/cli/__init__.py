"""The command line: `outboard master SONG -o DIR` and its kin. Each is a client of the job API."""

import os

# gRPC's core writes its own notices to standard error (a peer that says goodbye, say).
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from outboard.cli.app import main

__all__ = ["main"]
