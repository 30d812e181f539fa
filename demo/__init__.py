"""How the bundled demo model was made: corpus, tokenizer, network, training and evaluation."""
