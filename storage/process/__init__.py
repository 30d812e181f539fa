"""What every process sets up for itself: logging, garbage collection, thread time slices."""
