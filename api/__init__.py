"""The face: HTTP and command line."""
