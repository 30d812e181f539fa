"""Connections to SQLite or PostgreSQL, group commit, schema and migrations."""
