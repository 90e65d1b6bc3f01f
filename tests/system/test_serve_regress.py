"""What was wrong with the whole once: each test fails without its fix."""
import os
import signal

import pytest

from harness import SLOW, wait_until
from harness.segue import command

pytestmark = pytest.mark.whole


def gateways(pid):
    """Its gateway processes that live."""
    out = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as f:
            children = f.read().split()
        for child in children:
            try:
                with open(f"/proc/{child}/cmdline", "rb") as f:
                    if b"\0gateway\0" in f.read():
                        out.add(int(child))
            except OSError:
                pass
    return out


def test_gateway_that_dies_at_once_is_started_again_at_once(segue):
    """Its end was seen only when it had not said hello for 5 seconds."""
    s = segue({"m": {"versions": {"v1": command()}}})
    pid = s.process.pid
    seen = gateways(pid)
    assert len(seen) == 1
    os.kill(min(seen), signal.SIGKILL)
    second = wait_until(lambda: gateways(pid) - seen, 10, "the second gateway", every=0.0002)
    os.kill(min(second), signal.SIGKILL)  # before it has taken the manager's connection
    wait_until(lambda: gateways(pid) - seen - second, SLOW, "the third gateway")
    s.wait_ready()
