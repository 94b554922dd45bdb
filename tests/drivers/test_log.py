"""How often a line may be logged."""

from gunicorn_h2.drivers.log import Throttle


def test_a_throttle_lets_one_through_in_a_while_and_counts_the_others():
    throttle = Throttle(2.0)
    assert [throttle.admit(now) for now in (-5.0, -4.0, -3.5, -3.0, -2.9, 9.0)] == [0, None, None, 2, None, 1]
