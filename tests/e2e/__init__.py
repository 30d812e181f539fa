"""The whole platform, as real processes, seen from outside."""
