"""Turns: jobs that answer in a conversation, one at a time."""
