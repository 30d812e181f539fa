"""Thinking: what requests ask of it, what a model can do, and thoughts on their way back."""
