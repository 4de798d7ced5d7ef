"""Fixtures live in fix_*.py beside this file."""

import hypothesis

pytest_plugins = ["fix_cluster", "fix_driven", "fix_load", "fix_providers", "fix_runs"]

# How long one example takes depends on what else the machine does; the time limits of the tests stand.
hypothesis.settings.register_profile("labkit", deadline=None)
hypothesis.settings.load_profile("labkit")
