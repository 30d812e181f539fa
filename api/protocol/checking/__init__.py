"""Judgment of schemas and grammars beside the event loop: in processes that may be killed, with a cache of verdicts."""
