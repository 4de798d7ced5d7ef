"""One user of a cluster at a time: an experiment while it drives the servers, or whoever stops or deletes them."""

from __future__ import annotations

import contextlib

from labkit import files
from labkit.errors import BadInput, ClusterError
from labkit.lab.providers import names
from labkit.lab.providers.declared import DECLARED, ProviderName
from labkit.remedies import advice


def alone_on(provider: ProviderName, cluster: str, or_else: str = "end it") -> contextlib.AbstractContextManager[None]:
    """Keep every experiment off a cluster. Raises ClusterError if one uses it, and BadInput for a name that is none.

    `or_else`: in words, what helps beside waiting. Attached servers are not the lab's to reserve.
    """
    declared = DECLARED[provider]
    if not declared.owns:
        return contextlib.nullcontext()
    if problems := names.problems(cluster):  # the lock would lie elsewhere
        raise BadInput(problems, subject="cluster's name")

    def busy(process: str) -> ClusterError:
        return ClusterError(
            f"an experiment uses cluster {cluster} now (process {process})",
            remedy=[advice("wait for its end"), advice(or_else)],
        )

    return files.locked(declared.root() / f".{cluster}.experiment.lock", busy)
