"""The one place where torch and transformers are loaded."""
