"""Scheduling and cache accounting in plain Python, driven through the Runner protocol."""
