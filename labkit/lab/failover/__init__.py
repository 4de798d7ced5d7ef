"""Losing a primary and going on: the steps of a failover, and the trials that are made of it."""

from labkit.lab.failover.steps import OVERRIDE, FailoverSteps, Policy, Refused

__all__ = ["OVERRIDE", "FailoverSteps", "Policy", "Refused"]
