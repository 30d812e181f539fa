"""Copies of rows and of Redis' health that are refreshed beside the requests."""
