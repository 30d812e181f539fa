"""Conversations: items that turns and clients append, in the order of one counter."""
