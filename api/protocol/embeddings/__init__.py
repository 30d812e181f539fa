"""Jobs that make vectors: `/v1/embeddings`, and the inputs of all jobs that an encoder runs."""
