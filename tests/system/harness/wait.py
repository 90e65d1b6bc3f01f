"""Tests wait for facts, not for time."""
import time


def wait_until(fact, deadline=10.0, what=None, every=0.005):
    """Calls fact() until it is true and returns its value; fails after `deadline` seconds.

    An AssertionError or OSError within fact() counts as "not yet" and is shown at the end.
    """
    until = time.monotonic() + deadline
    while True:
        why = None
        try:
            value = fact()
            if value:
                return value
        except (AssertionError, OSError) as e:
            value, why = None, e
        if time.monotonic() >= until:
            name = what or getattr(fact, "__name__", "the fact")
            raise AssertionError(
                f"not within {deadline:g} s: {name}; last: {why if why is not None else value!r}")
        time.sleep(every)
        every = min(every * 1.5, 0.1)
