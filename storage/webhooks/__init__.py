"""Webhooks: endpoints, events, deliveries, signatures and URL policy."""
