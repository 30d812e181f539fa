"""Models on plain torch: transformers' modules over a paged cache."""
