"""Redis: client, Celery queue and event log."""
