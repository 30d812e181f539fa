"""The completions protocol: wire types, object and log probabilities."""
