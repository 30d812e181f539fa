"""Tests of the command line and the supervisor, with real processes."""
