"""Batches as the API shows and creates them; `workers.batches` runs them."""
