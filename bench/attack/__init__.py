"""Attacks on whole servers: what another client notices of them, what they cost, and how they end.

`python -m bench.attack`, or `make attack`. Each attack runs against a server of its own, over TLS: the server on one
core; on another the attacker, and two bystanders in processes of their own, which run before it where both could.
`bench.attacks` measures what such traffic costs the core alone.
"""
