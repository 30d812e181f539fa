"""A model's attention layers, and which architectures are supported."""
