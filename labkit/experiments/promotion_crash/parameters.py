"""Parameters of promotion-crash."""

from __future__ import annotations

import dataclasses

from labkit.experiments.parameters import param
from labkit.experiments.shared import OnServers, _provider

CAUSES = ("deleted", "mounted", "immutable", "sticky", "unwritable", "foreign")


@dataclasses.dataclass(frozen=True)
class PromotionCrash(OnServers):
    """pg_promote in every set-up that makes it crash, beside two that look alike and do not."""

    experiment = "promotion-crash"

    cluster: str = param("crash", "name of the cluster that is made anew for every set-up")
    causes: str = param(",".join(CAUSES), "which set-ups to try", choices=CAUSES, many=True)

    def conflicts(self) -> list[str]:
        return _provider(self.provider, [])
