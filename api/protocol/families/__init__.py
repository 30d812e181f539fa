"""Model families: what each writes for thoughts and tool calls, as a parser and as a grammar."""
