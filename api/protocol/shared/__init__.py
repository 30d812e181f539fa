"""What the three protocols have in common."""
