"""Telling: events are handed out to those who want them, signed, and posted where it is safe to post."""
