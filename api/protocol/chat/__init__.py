"""The chat completions protocol: wire types and object."""
