"""Fixtures live in fix_*.py beside this file."""

import signal

import hypothesis

pytest_plugins = ["fix_cluster", "fix_driven", "fix_load", "fix_providers", "fix_runs"]

# A shell starts what it runs in the background with Ctrl-C ignored, and every program started from there inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes depends on what else the machine does; the time limits of the tests stand.
hypothesis.settings.register_profile("labkit", deadline=None)
hypothesis.settings.load_profile("labkit")
