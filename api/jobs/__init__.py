"""From a create request to a job, and from a job to its reply."""
