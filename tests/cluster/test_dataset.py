"""Seeding real servers: the same rows on every node, ready to be measured, all or nothing."""

import time

import psycopg
import pytest

from labkit.errors import ClusterError
from labkit.lab import dataset
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.dataset import seeding
from labkit.progress import Progress

SPEC = dataset.DatasetSpec(users=20_000, locale="ru_RU", seed=11)


def one(node, query, parameters=None, user="admin"):
    with node.connect(user) as connection:
        return connection.execute(query, parameters).fetchone()


def interrupting(label, after):
    """A progress that is Ctrl-C once the bar called `label` has come to `after`."""

    class Interrupting(Progress):
        def update(self, done):
            if self.label == label and done >= after:
                raise KeyboardInterrupt
            super().update(done)

    return Interrupting


@pytest.fixture
def seeded(cluster):
    """The cluster with SPEC's rows, whatever an earlier test did to them."""
    dataset.seed(cluster, SPEC)
    return cluster


def test_every_node_holds_exactly_the_rows_of_the_spec(seeded):
    expected = [line.split("\t") for line in b"".join(dataset.copy_text(SPEC)).decode().splitlines()]
    for node in seeded.nodes:
        with node.connect("app") as connection, connection.cursor().copy("COPY users TO STDOUT") as copy:
            found = [line.split("\t") for line in b"".join(copy).decode().splitlines()]
        assert [[row[0].replace("-", ""), *row[1:]] for row in found] == expected, node.name


def test_the_id_of_user_number_i_can_be_computed_in_sql(seeded):
    numbered = "SELECT count(*) FROM generate_series(0, %s) i JOIN users ON id = md5('11:' || i)::uuid"
    assert one(seeded.primary(), numbered, [SPEC.users - 1]) == (SPEC.users,)


@pytest.mark.parametrize("locale", ["ru_RU", "en_US"])
def test_a_prefix_search_on_both_names_uses_the_index_and_finds_them(cluster, locale):
    spec = dataset.DatasetSpec(20_000, locale, 11)
    dataset.seed(cluster, spec)
    names = dataset.names(spec)
    first, second = (name[:3] + "%" for name in names.of(4711))
    everybody = (names.of(i) for i in range(spec.users))
    hits = sum(f.startswith(first[:-1]) and s.startswith(second[:-1]) for f, s in everybody)
    with cluster.replicas()[0].connect("app") as connection:
        search = "SELECT id FROM users WHERE first_name LIKE $1 AND second_name LIKE $2"
        connection.execute("PREPARE search (text, text) AS " + search)

        def execute(prefixes, how=""):
            call = psycopg.sql.SQL(f"{how} EXECUTE search ({{}}, {{}})").format(*prefixes)
            return connection.execute(call).fetchall()

        # From the sixth execution on the server could choose a plan for any prefix, which could not use the index.
        for _ in range(10):
            assert len(execute((first, second))) == hits >= 1
        plan = "\n".join(row[0] for row in execute((first, second), "EXPLAIN"))
        assert "users_names" in plan
        assert "Index Cond" in plan
        misses = zip(names.absent_first[::500], names.absent_second[::500], strict=False)
        assert not any(execute((first + "%", second + "%")) for first, second in misses)


def test_the_rows_are_settled_so_that_nothing_disturbs_the_measurement(seeded):
    pages = "SELECT relpages, relallvisible FROM pg_class WHERE relname = 'users'"
    relpages, relallvisible = one(seeded.primary(), pages)
    assert relpages == relallvisible > 0
    pending = (
        "SELECT n_live_tup, n_mod_since_analyze, n_ins_since_vacuum FROM pg_stat_user_tables WHERE relname = 'users'"
    )
    assert one(seeded.primary(), pending) == (SPEC.users, 0, 0)
    statistics = "SELECT count(*) FROM pg_stats WHERE tablename = 'users'"
    assert [one(node, statistics) for node in seeded.nodes] == [(7,)] * len(seeded.nodes)


def test_no_node_is_the_first_to_read_its_rows_under_load(seeded):
    """Table and indexes are read whole, so that the first round does not compare cold caches with warm ones."""
    seeded.wait_for_catchup(20)
    read = (
        "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'users' UNION ALL "
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'users'"
    )

    def counts(node):
        with node.connect() as connection:
            return [row[0] for row in connection.execute(read)]

    before = {node.name: counts(node) for node in seeded.nodes}
    dataset.read_once(seeded.nodes)
    for node in seeded.nodes:
        whole = [count + SPEC.users for count in before[node.name]]
        wait_until(lambda node=node, whole=whole: counts(node) == whole, 20, "the counts of what was read", node)


def test_the_application_may_use_rows_but_not_the_table(seeded):
    with seeded.primary().connect("app", autocommit=False) as connection:
        connection.execute("DELETE FROM users WHERE id = md5('11:0')::uuid")
        connection.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TABLE users")


def test_seeding_twice_is_a_no_op(seeded):
    file = one(seeded.primary(), "SELECT pg_relation_filenode('users')")
    began = time.monotonic()
    report = dataset.seed(seeded, SPEC)
    assert time.monotonic() - began < 1.0
    assert report.already_there
    assert report.rows == SPEC.users
    assert report.total_s == 0
    assert one(seeded.primary(), "SELECT pg_relation_filenode('users')") == file


def test_another_spec_replaces_the_rows(seeded):
    report = dataset.seed(seeded, dataset.DatasetSpec(100, "en_US", 12))
    assert not report.already_there
    assert min(report.copy_s, report.index_s, report.analyze_s, report.checkpoint_s, report.table_bytes) > 0
    for node in seeded.nodes:
        assert one(node, "SELECT count(*), count(*) FILTER (WHERE id = md5('12:99')::uuid) FROM users") == (100, 1)


def test_ctrl_c_while_rows_are_copied_leaves_what_was_there(seeded):
    with pytest.raises(KeyboardInterrupt):
        dataset.seed(seeded, dataset.DatasetSpec(50_000), progress=interrupting("seeding users", 10_000))
    assert one(seeded.primary(), "SELECT count(*) FROM users") == (SPEC.users,)
    assert dataset.seed(seeded, SPEC).already_there


@pytest.mark.parametrize("label", ["indexing the users", "settling the dataset"])
def test_seeding_cut_off_later_is_done_again(seeded, label):
    other = dataset.DatasetSpec(5000, seed=13)
    with pytest.raises(KeyboardInterrupt):
        dataset.seed(seeded, other, progress=interrupting(label, 0))
    assert not dataset.seed(seeded, other).already_there
    assert one(seeded.primary(), "SELECT count(*) FROM users") == (5000,)
    assert dataset.seed(seeded, other).already_there


def test_a_server_that_gives_up_is_named_and_nothing_half_is_left(seeded):
    class Terminating(Progress):
        def update(self, done):
            if done == self.total // 2:
                return
            one(
                seeded.primary(),
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'COPY users%'",
            )

    with pytest.raises(ClusterError, match=r"cut off.*seed again") as raised:
        dataset.seed(seeded, dataset.DatasetSpec(50_000, seed=14), progress=Terminating)
    assert raised.value.node == seeded.primary().name
    assert dataset.seed(seeded, SPEC).already_there


def test_a_table_in_use_is_an_error_that_says_so(seeded, monkeypatch):
    monkeypatch.setattr(seeding, "_LOCK_TIMEOUT", "200ms")
    with seeded.primary().connect("app", autocommit=False) as load:
        load.execute("SELECT count(*) FROM users")
        with pytest.raises(ClusterError, match="in use"):
            dataset.seed(seeded, dataset.DatasetSpec(100))
    assert dataset.seed(seeded, SPEC).already_there


def test_a_disk_that_is_too_small_is_found_before_anything_starts(seeded):
    with pytest.raises(ClusterError, match=r"1,000,000,000,000 users on pg1, .* need .* GiB, .* has .* GiB free"):
        dataset.seed(seeded, dataset.DatasetSpec(10**12))
    assert dataset.seed(seeded, SPEC).already_there
