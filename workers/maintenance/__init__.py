"""The CPU worker's duties: sweeping, log repair, deadlines and liveness."""
