"""Parsers of what families write: heads, arguments and ends of calls, and thoughts."""
