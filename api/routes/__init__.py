"""HTTP routes, thin: parse, call, return."""
