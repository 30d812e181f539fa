"""Which models and workers there are, and which worker holds which duty."""
