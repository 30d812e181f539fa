"""Constrained decoding: what the grammar of an output allows next, as packed token masks; llguidance, no torch."""
