"""Batches: their rows, the rows of their lines, and what the ends of jobs write there."""
