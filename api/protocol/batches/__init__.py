"""The wire of batches: the lines of input files, the lines of results, and the body of a create request."""
