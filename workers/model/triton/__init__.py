"""Attention over blocks of the cache on a GPU. Only a GPU's runner imports this room: a CPU has no Triton."""
