"""JSON schemas: what of a schema is enforced, and the normal form that is compiled."""
