"""Outgoing network access: the URL policy and name resolution."""
