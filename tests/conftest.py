"""Fixtures live in fix_*.py beside this file."""

pytest_plugins = ["fix_cluster", "fix_providers", "fix_runs"]
