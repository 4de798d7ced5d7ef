"""One failover under write load, all steps at once."""

from __future__ import annotations

from labkit.experiments.failover.drill import FailoverDrill
from labkit.experiments.failover.parameters import Failover
from labkit.run.store import Run


def run_failover(parameters: Failover) -> Run:
    """Write, lose the primary, promote a replica, audit every row, and bring the old primary back.

    With `run_id` nothing is driven: the recorded run is returned. Raises LabkitError; Refused, a ClusterError, if the
    failover would lose data: the run is then marked failed.
    """
    return FailoverDrill(parameters.replace(by_hand=False)).run
