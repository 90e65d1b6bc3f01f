"""Fixtures of the system tests. A test owns a box; everything it starts lives and ends there."""
import pytest

from harness import Box, Fake, Gateway, Load, Segue, Upstream


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: long; only with --soak")
    config.addinivalue_line("markers", "gateway: needs the gateway alone; runs under TSan too")
    config.addinivalue_line("markers", "whole: needs `segue serve` and its engines")


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long tests, and only those")


def pytest_collection_modifyitems(config, items):
    soak = config.getoption("--soak")
    keep = [i for i in items if bool(i.get_closest_marker("soak")) == soak]
    drop = [i for i in items if i not in keep]
    if drop:
        config.hook.pytest_deselected(items=drop)
    # Those that may take long go first, so that two workers end together.
    items[:] = sorted(keep, key=lambda i: not _long(i))


def _long(item):
    limit = item.get_closest_marker("timeout")
    return bool(limit and limit.args and limit.args[0] >= 300)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.failed_call = report.failed
        box = getattr(item, "box", None)
        if report.failed and box:
            report.sections.append(("logs of the box", box.logs()))
    return report


@pytest.fixture
def box(request):
    b = Box(request.node.nodeid.split("/")[-1])
    request.node.box = b
    yield b
    complaints = b.close(failed=getattr(request.node, "failed_call", False))
    if complaints:
        pytest.fail("\n\n".join(complaints), pytrace=False)


@pytest.fixture
def gateway(box):
    """gateway(models=..., workers=...): a gateway alone."""
    return lambda **more: Gateway(box, **more)


@pytest.fixture
def upstream(box):
    """upstream(script): a scripted engine."""
    def make(script=None, **more):
        more.setdefault("name", f"upstream{len(box.owned)}")
        return Upstream(box, script, **more)
    return make


@pytest.fixture
def segue(box):
    """segue({"hy-mt": {...}}): the whole."""
    return lambda models, **more: Segue(box, models, **more)


@pytest.fixture
def fake(box):
    """fake("--mode", "500"): a fake engine as a process of the test."""
    return lambda *args, **more: Fake(box, *args, **more)


@pytest.fixture
def load(box):
    """load(address, connections=32): verified load until its finish()."""
    return lambda address, **more: Load(box, address, **more)
