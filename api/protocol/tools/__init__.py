"""Tools: declarations, choices, calls and results in requests; what the model and the answer have of them."""
