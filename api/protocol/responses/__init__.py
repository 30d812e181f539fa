"""The Responses protocol: wire types, object and fold."""
