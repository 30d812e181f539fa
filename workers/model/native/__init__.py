"""The native decoder: C++ kernels for CPUs, compiled at the first start where a compiler is installed."""
