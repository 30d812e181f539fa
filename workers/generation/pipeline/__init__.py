"""The generation pipeline: what happens to a job between its ticket and its acknowledgement, one stage a thread."""
