"""What is known of a model's layers before it is run, and which architectures are supported."""
