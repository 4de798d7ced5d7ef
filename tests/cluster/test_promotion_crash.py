"""The promotion that crashes, on real servers: every set-up with its message, its reason, the warning, the repair."""

from __future__ import annotations

import os

import pytest

from labkit.experiments.promotion_crash import findings as crash
from labkit.experiments.promotion_crash.drive import promotion_crash
from labkit.experiments.promotion_crash.parameters import CAUSES, PromotionCrash
from labkit.lab.providers import provider
from labkit.lab.providers.protocol import Provider

CRASHES = {
    "deleted": "No such file or directory",
    "mounted": "Device or resource busy",
    "immutable": "Operation not permitted",
    "sticky": "Operation not permitted",
}
ORIGINAL = [
    "WARNING:  terminating connection because of crash of another server process",
    "server closed the connection unexpectedly",
    "before or while processing the request.",
]


@pytest.mark.timeout(240)
def test_every_set_up_is_foreseen_crashes_is_explained_and_repaired(each_provider: Provider) -> None:
    """All of them on plain processes; in containers what people there do to a file, by hand or in a compose file."""
    causes = CAUSES if each_provider.name == "embedded" else ("deleted", "mounted", "unwritable")
    asked = {"provider": each_provider.name, "cluster": "crash-test", "causes": ",".join(causes)}
    run = promotion_crash(PromotionCrash.build(asked))
    blocks = {block.cause: block for block in run.blocks}
    assert tuple(blocks) == causes
    untried = {cause: block.reason for cause, block in blocks.items() if not block.tried}
    if os.environ.get("CI"):
        assert untried == {}
    for cause in set(CRASHES) & set(causes) - set(untried):
        block = blocks[cause]
        assert (block.promoted, block.survived) == (False, False), cause
        assert all(line in block.client for line in ORIGINAL), block.client
        assert any(line.endswith(f'could not remove file "standby.signal": {CRASHES[cause]}') for line in block.log)
        assert "The promotion would end with a crash" in block.preflight[0]
        assert block.repaired == "primary"
    refused = blocks["unwritable"]
    assert (refused.promoted, refused.survived, refused.repaired) == (False, True, "primary")
    assert "pg_promote would be refused" in refused.preflight[0]
    if "foreign" in set(causes) - set(untried):
        assert blocks["foreign"].promoted
        assert blocks["foreign"].preflight == []
    assert crash.validity(run) == []
    assert "crash-test" not in provider(each_provider.name).names()
