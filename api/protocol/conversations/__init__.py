"""The wire of conversations: their requests and objects."""
