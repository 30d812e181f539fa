"""Encoders: models that make one vector of a text, or one score of a pair, from folders of sentence-transformers."""
