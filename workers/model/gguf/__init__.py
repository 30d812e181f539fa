"""GGUF files as a source of models: read, checked, and converted once into a folder of safetensors."""
