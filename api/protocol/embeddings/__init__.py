"""Jobs of encoders: `/v1/embeddings`."""
