"""Token events on their way to Redis."""
