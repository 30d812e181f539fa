"""Triton kernels against a plain reference."""
