"""Caches that background tasks refresh: models and the database clock; database access in threads."""
