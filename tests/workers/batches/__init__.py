"""Tests of the CPU worker's duties about batches."""
