"""The ground: rows, queue and event log; knows nobody above."""
