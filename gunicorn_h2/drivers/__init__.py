"""The drivers: they wait for sockets and run requests, and are the only code that blocks."""
