"""`tokenpost batches`, a client of the HTTP API."""
