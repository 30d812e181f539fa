"""Token events on their way from Redis to the client: relay, subscriptions, server-sent events."""
