"""The `tokenpost` command."""
