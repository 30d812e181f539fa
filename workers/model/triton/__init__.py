"""Attention kernels over cache blocks on a GPU. Only the GPU's runner imports them: torch for CPUs brings no Triton."""
