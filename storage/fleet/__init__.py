"""Models, workers and lock holders."""
