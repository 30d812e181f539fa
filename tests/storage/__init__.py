"""Tests of the ground, on real databases and a real Redis."""
