"""Answers: segments, items, outcome, and the base of folds, between a job's log and the wires."""
