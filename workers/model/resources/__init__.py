"""Where a model runs and how much memory, threads and numbers a step may take."""
