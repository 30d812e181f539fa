"""Job rows: tables, queries and every change of a job's status."""
