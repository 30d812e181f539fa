"""Encoders: folders of sentence-transformers, and vectors that depend on nothing but their text."""
