"""The HTTP server process: its entry point and its limits."""
