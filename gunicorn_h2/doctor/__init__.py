"""`gunicorn-h2 doctor URL`: connects as a client, and says in plain words what is negotiated, and why not HTTP/2.

`exchange` speaks HTTP/2 and HTTP/1.1 without any I/O, `judge` turns what was seen into words, `report` collects and
prints them; they need no socket. `wire` has the sockets, `diagnosis` the order of attempts, `command` the arguments.
"""
