"""The fault drill: a client with a ledger, faults at random moments, and a judge of what came of every job."""
