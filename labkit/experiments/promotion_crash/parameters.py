"""Parameters of promotion-crash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from labkit.experiments.parameters import param
from labkit.experiments.shared import OnServers
from labkit.experiments.values import Several
from labkit.lab.cluster.powers import Damageable
from labkit.run.schema import Cause

CAUSES: tuple[Cause, ...] = get_args(Cause)


class PromotionCrash(OnServers):
    """pg_promote in every set-up that makes it crash, beside two that look alike and do not."""

    experiment = "promotion-crash"

    cluster: str = param("crash", "name of the cluster that is recreated for every set-up")
    causes: Several[Cause] = param(",".join(CAUSES), "which set-ups to try")

    def needs(self) -> Mapping[type, str]:
        return {Damageable: "causes: damage to a data directory"}
