"""Losing a primary and going on: the steps of a failover, and the trials that are made of it."""

from labkit.lab.failover.policy import Policy
from labkit.lab.failover.steps import FailoverSteps, Refused

__all__ = ["FailoverSteps", "Policy", "Refused"]
