"""The sans-IO core of HTTP/2: octets and the time in, events and octets out.

Nothing in this package reads a clock, touches a socket or starts a thread, so every rule of
RFC 9113 can be tested on plain octets. Drivers use it through `ServerConnection`.
"""
