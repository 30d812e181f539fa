"""The hands: generation and background work, fed by Celery."""
