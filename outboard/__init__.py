"""Outboard: a rack of separate audio processors, patched together as a gRPC mesh."""
