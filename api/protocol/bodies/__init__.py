"""Bounds on JSON bodies, and decoding of large ones that lets other threads run."""
