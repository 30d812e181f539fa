"""The platform at size: many stored and queued jobs, keys, sockets and bodies. `make size` runs it whole."""
