"""Medians, ratios and failures of a run."""

import dataclasses

import pytest

from bench.results import Results, Sample


def test_a_median_of_the_rounds(results):
    assert results.median("thread", "hello", "rate") == 120_000
    assert results.median("thread", "hello", "cpu") == 9.0
    assert results.median("broken", "hello", "rate") is None
    assert results.median("builtin", "idle", "memory") is None


def test_a_ratio_is_that_of_the_same_round(results):
    assert results.ratios("thread", "granian", "hello", "rate") == [1.2, 1.5, 2.1]
    assert results.ratio("thread", "granian", "hello", "rate") == 1.5


def test_a_round_that_one_of_two_has_missed_has_no_ratio(results):
    results.samples = [sample for sample in results.samples if (sample.server, sample.round) != ("granian", 1)]
    assert results.ratios("thread", "granian", "hello", "rate") == [1.5, 2.1]


def test_no_ratio_to_what_was_not_measured(results):
    assert results.ratio("thread", "absent", "hello", "rate") is None
    assert results.ratio("thread", "builtin", "idle", "memory") is None


def test_a_revision_as_reference_is_that_of_the_same_server(results):
    results.samples = [Sample("thread@a", "hello", 1, {"rate": 10.0}), Sample("thread@b", "hello", 1, {"rate": 30.0}),
                       Sample("gevent@a", "hello", 1, {"rate": 10.0}), Sample("gevent@b", "hello", 1, {"rate": 20.0})]
    assert results.ratio("thread@b", "@a", "hello", "rate") == 3.0
    assert results.ratio("gevent@b", "@a", "hello", "rate") == 2.0
    assert results.ratio("gevent@a", "@a", "hello", "rate") == 1.0


def test_only_measured_references_count(results):
    assert results.references() == ["granian", "builtin"]


def test_failures_are_added_up_over_the_rounds(results):
    results.samples += [Sample("thread", "hello", 4, {"rate": 1.0}, 100, 3, note="reset"),
                        Sample("thread", "hello", 5, {"rate": 1.0}, 100, 4, note="reset")]
    assert list(results.failures()) == [("thread", "hello", 7, 3200, "reset"),
                                        ("builtin", "idle", 4984, 5000, "closed | too soon")]


def test_json_brings_everything_back(results):
    again = Results.from_json(results.to_json())
    assert dataclasses.asdict(again) == dataclasses.asdict(results)
    assert again.ratio("thread", "granian", "hello", "rate") == pytest.approx(1.5)
