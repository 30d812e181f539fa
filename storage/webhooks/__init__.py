"""Webhook endpoints, events and deliveries: tables and queries."""
