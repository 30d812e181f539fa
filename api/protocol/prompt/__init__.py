"""From messages to token ids: chat template and tokenizer."""
