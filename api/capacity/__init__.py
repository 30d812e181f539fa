"""How many jobs wait, how fast they are served, and whether one more is admitted."""
