"""Sampling: reproducible next tokens of rows of logits, and log probabilities."""
