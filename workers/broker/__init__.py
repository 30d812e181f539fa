"""Celery as the generation worker uses it: pool, consumer, event loop and priority queues."""
