"""What was recorded is exactly what the servers counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fix_load import DATA, drive, targets

from labkit.lab import dataset
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.load.spec import LoadSpec
from labkit.lab.workloads.base import Workload
from labkit.lab.workloads.get_user import GetUser
from labkit.lab.workloads.search_users import SearchUsers


def test_records_are_as_many_as_the_server_counted(load: LoadSpec, seeded: Cluster) -> None:
    counted = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'users_pkey'"
    with seeded.primary().connect() as connection:
        before = connection.execute(counted).fetchone()[0]
        result, ops = drive(load)
        # A server reports its counts when a session ends; the sessions of the load have ended or are about to.
        after = []

        def reported() -> bool:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            after[:] = [connection.execute(counted).fetchone()[0]]
            return after[0] - before >= result.requests

        wait_until(reported, 10, "the counts of the ended sessions", seeded.primary())
    assert after[0] - before == result.requests == len(ops)
    assert set(ops["outcome"]) == {"ok"}
    assert set(ops["rows"]) == {1}


@pytest.mark.parametrize("workload", [GetUser(DATA), SearchUsers(DATA, hit_ratio=0.5)], ids=lambda w: w.name)
def test_pg_stat_statements_counts_the_same_calls_and_the_same_rows(
    load: LoadSpec, own_cluster: Cluster, workload: Workload
) -> None:
    primary = own_cluster.primary()
    primary.configure({"shared_preload_libraries": "pg_stat_statements"})
    primary.control.stop()
    primary.control.start()
    primary.wait_ready(20)
    dataset.seed(own_cluster, DATA)
    with primary.connect() as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        result, ops = drive(replace(load, workload=workload, targets=targets([primary])))
        by_the_app = "SELECT sum(calls)::bigint, sum(rows)::bigint FROM pg_stat_statements WHERE userid = %s::regrole"
        counted = connection.execute(by_the_app + " AND query LIKE '%% FROM users WHERE %%'", ["labkit_app"]).fetchone()
    assert counted == (result.requests, ops["rows"].sum())
    assert result.requests == len(ops) > 500
