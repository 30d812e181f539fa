"""Job kinds: what each wire provides, and the prepared job."""
