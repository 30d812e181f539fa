"""Worker processes: generation on GPUs or CPUs, and background maintenance."""
