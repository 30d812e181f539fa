"""From token ids to text: incremental detokenizer and stop strings."""
