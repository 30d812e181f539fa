"""Continuations: background jobs that run one after another."""
