"""The CPU worker's duties about batches: validation, jobs of lines, ends, and the files of results."""
