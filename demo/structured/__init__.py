"""Structured answers of the demo model: tool calls, answers from results, filled schemas, short thoughts."""
