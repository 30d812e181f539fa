"""Resources of a model: device, memory, threads, and the sizes of its steps."""
