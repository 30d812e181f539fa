"""Draws the next token of each row of logits, so that it can be drawn again, and tells log probabilities."""
