"""Wire types and folds: pure, no FastAPI, no torch."""
