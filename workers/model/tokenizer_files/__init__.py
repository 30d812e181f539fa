"""Tokenizers that are made of other files than a `tokenizer.json`: SentencePiece models and Mistral's Tekken."""
