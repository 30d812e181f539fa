"""The sub-commands of `tokenpost`."""
