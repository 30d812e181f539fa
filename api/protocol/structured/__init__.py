"""Structured output: formats of the answer, and the judgment of schemas and grammars that callers send."""
