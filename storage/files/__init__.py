"""Files: their rows, their content in chunks, and the store that holds the content."""
