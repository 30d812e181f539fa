"""Who calls: API keys and idempotency keys."""
