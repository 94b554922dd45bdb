"""The drivers: who waits for sockets and who runs requests. The only code that blocks."""
