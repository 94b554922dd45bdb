"""RFC 9113, RFC 7541, RFC 8441 and RFC 9218 rule by rule, on real workers: each error has its exact code and scope."""

import pytest

from . import frames, framing, hpack, priority, semantics, starting, streams, websocket  # noqa: F401 - they fill ALL
from .rules import ALL, Client, rules_of
from .sections import NORMATIVE, NOT_A_SERVERS


@pytest.mark.parametrize("section", dict.fromkeys(rule.section for rule in ALL))
def test_section(server, section):
    """Every rule of the section holds, each on a connection of its own."""
    failures = {}
    for rule in rules_of(section, server.tls):
        try:
            with Client.connect(server, **rule.options) as client:
                client.play(rule)
        except Exception as error:
            failures[rule.name] = error
    if failures:
        text = "\n".join(f"{name}: {type(error).__name__}: {error}" for name, error in failures.items())
        raise AssertionError(f"{section}\n{text}") from next(iter(failures.values()))


def test_no_section_is_missing():
    """Every section that binds a server has a rule, and no rule has a section that does not."""
    assert {rule.section for rule in ALL} == set(NORMATIVE)
    assert not set(NORMATIVE) & set(NOT_A_SERVERS)


def test_names_are_unique():
    assert len({(rule.section, rule.name) for rule in ALL}) == len(ALL)
