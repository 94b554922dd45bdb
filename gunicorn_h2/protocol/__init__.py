"""The sans-IO core of HTTP/2: bytes and the time in, events and bytes out.

Nothing in this package reads a clock, touches a socket or starts a thread, so every rule of
RFC 9113 can be tested on plain bytes. `ServerConnection` is its one class to know.
"""
