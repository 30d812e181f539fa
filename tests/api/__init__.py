"""Tests of the API: over HTTP, on a real Redis and real databases, with a worker that is played by a thread."""
