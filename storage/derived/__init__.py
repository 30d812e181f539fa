"""Derived tables, which database triggers keep up to date with the job table."""
