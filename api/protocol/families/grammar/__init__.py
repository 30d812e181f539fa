"""Grammars of what families may write."""
