"""Webhook delivery: fan-out, fair scheduling, signing, SSRF-safe posting and retries."""
