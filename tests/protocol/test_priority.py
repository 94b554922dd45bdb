"""The `priority` field: RFC 9218 section 4 on the dictionaries of RFC 8941."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.priority import Priority, parse_priority, request_priority

DEFAULT = Priority(3, False)


@pytest.mark.parametrize(("value", "expected"), [
    (b"", DEFAULT),
    (b"u=0", Priority(0)),
    (b"u=7", Priority(7)),
    (b"i", Priority(3, True)),
    (b"u=1, i", Priority(1, True)),
    (b"i,u=1", Priority(1, True)),
    (b"u=1\t,\t i", Priority(1, True)),
    (b"  u=1, i  ", Priority(1, True)),
    (b"i=?1", Priority(3, True)),
    (b"i=?0", DEFAULT),
    (b"u=2, u=5", Priority(5)),
    (b"i, i=?0", DEFAULT),
])
def test_the_members(value, expected):
    assert parse_priority(value) == expected


@pytest.mark.parametrize("value", [b"u=8", b"u=-1", b"u=3.0", b"u", b'u="1"', b"u=a", b"u=?1", b"u=(1)", b"u=10",
                                   b"u=999999999999999"])
def test_an_urgency_of_a_wrong_type_or_range_is_ignored_alone(value):
    assert parse_priority(value + b", i") == Priority(3, True)


@pytest.mark.parametrize("value", [b"i=1", b"i=a", b'i="?1"', b"i=()", b"i=:aGk=:"])
def test_an_incremental_of_a_wrong_type_is_ignored_alone(value):
    assert parse_priority(b"u=1, " + value) == Priority(1, False)


@pytest.mark.parametrize("value", [
    b"u=1;a", b"u=1;a=2;b=?0", b"u=1; a=x", b"x=a/b:c, u=1", b'x="a\\"b\\\\, u=2", u=1', b"x=(1 2;a=b  c );d, u=1",
    b"x=:aGk=:, u=1", b"x=-1.5, u=1", b"*a=1, u=1", b"a-b_c.d*e, u=1", b"x=(), u=1", b"u=1, x=*t",
])
def test_other_members_and_parameters_are_ignored(value):
    assert parse_priority(value) == Priority(1, False)


@pytest.mark.parametrize("value", [
    b"u=1,", b",u=1", b"u=1,,i", b"u=1 i", b"U=1", b"u =1", b"u= 1", b"u=1;", b"u=1 ;a", b"u=1, 9=2", b'u=1, x="a',
    b"u=1, x=(1", b"u=1, x=(1,2)", b"u=1, x=1.", b"u=1, x=1.2345", b"u=1, x=1234567890123456", b"u=1, x=?2",
    b"u=1, x=:a", b"u=1, x=\xe9", b'u=1, x="\xe9"', b"u=1\n", b"u=1, \xff", b"\xff", b"u=1.5.5", b"u=",
    b"\tu=1", b'u=1, x="a\\b"', b"u=1, x=1234567890123.1",
])
def test_a_malformed_field_is_ignored_as_a_whole(value):
    assert parse_priority(value) == DEFAULT


def test_repeated_fields_are_one_list():
    fields = [(b"priority", b"u=1"), (b"accept", b"*/*"), (b"priority", b"i, u=2")]
    assert request_priority(fields) == Priority(2, True)
    assert request_priority(fields[:2]) == Priority(1, False)
    assert request_priority(fields[1:2]) == DEFAULT


def test_one_malformed_field_spoils_the_list():
    assert request_priority([(b"priority", b"u=1"), (b"priority", b"?")]) == DEFAULT


def test_a_long_field_is_parsed_too():
    members = b", ".join(b"x%d=1" % number for number in range(1000))
    assert parse_priority(members + b", u=1") == Priority(1, False)


@pytest.mark.parametrize("unit", [b"a", b"a;", b"(", b"1 ", b"a;b=", b'"', b"u=(1 ", b",", b"a=(;", b"-"])
def test_no_field_takes_long(unit):
    """Twice as long a field may take twice as long, not four times."""
    begun = time.process_time()
    for start in (b"", b"u=", b"u=(", b"u=1;"):
        assert parse_priority((start + unit * 20_000)[:40_000]) in (DEFAULT, Priority(1, False))
    assert time.process_time() - begun < 1


@given(st.binary(max_size=80) | st.text("ui=,;?01379 ()\"\\:.-*", max_size=40).map(str.encode))
def test_anything_is_answered_with_a_priority(value):
    urgency, incremental = parse_priority(value)
    assert urgency in range(8)
    assert isinstance(incremental, bool)
