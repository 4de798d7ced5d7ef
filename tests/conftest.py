"""Fixtures live in fix_*.py beside this file."""

import os
import signal

import hypothesis
import pytest

pytest_plugins = ["fix_cluster", "fix_driven", "fix_load", "fix_providers", "fix_runs"]

# A shell starts what it runs in the background with Ctrl-C ignored, and every program started from there inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes depends on what else the machine does; the time limits of the tests stand.
hypothesis.settings.register_profile("labkit", deadline=None)
hypothesis.settings.load_profile("labkit")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers (--dist loadgroup), the tests of a file share one, and with it the clusters that they share.

    Those on Docker are one group: they look at all that the engine has. The longest groups begin first.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        on_docker = item.get_closest_marker("docker") is not None
        item.add_marker(pytest.mark.xdist_group("docker" if on_docker else item.path.stem))
    folders = ("notebooks", "cluster", "unit")
    items.sort(key=lambda item: (item.get_closest_marker("docker") is None, folders.index(item.path.parent.name)))
