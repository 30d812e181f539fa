"""Jobs that rate texts: `/v1/rerank` and `/v1/score`."""
