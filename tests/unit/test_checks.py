"""What is refused before anything starts."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest
from fix_cluster import taken_port
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import BadInput, ClusterError
from labkit.lab.providers import checks, names
from labkit.lab.providers.attach.connection_strings import connection_strings
from labkit.lab.providers.embedded.server import quoted
from labkit.lab.providers.protocol import ClusterSpec


def test_all_problems_are_in_one_message() -> None:
    spec = ClusterSpec("../up", 99, 80, {"port": "1", "work mem": "1MB", "work_mem": "1\nfsync=off"})
    with pytest.raises(BadInput) as error:
        checks.check_spec(spec)
    words = "\n".join(error.value.problems)
    assert len(error.value.problems) == 6
    for part in (
        "name:",
        "replicas:",
        "base_port:",
        "port is given by labkit",
        "'work mem'",
        "work_mem must be one line",
    ):
        assert part in words


@given(st.text(max_size=50))
def test_a_name_that_passes_is_one_plain_folder(name: str) -> None:
    if not names.problems(name):
        assert Path(name).name == name
        assert not name.startswith((".", "-"))


@given(st.text(alphabet=st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])))
def test_a_quoted_value_never_ends_its_quotes(value: str) -> None:
    inside = quoted({"name": value})["name"]
    assert inside.replace("\\\\", "").replace("''", "").count("'") == 0
    assert inside.replace("''", "'").replace("\\\\", "\\") == value


def test_a_taken_port_names_the_node_and_the_process() -> None:
    with (
        taken_port() as port,
        pytest.raises(ClusterError, match=rf"pg2: port {port} is taken.*labkit\.down\(.*purge=True\)"),
    ):
        checks.check_port("pg2", port)
    checks.check_port("pg2", port)


def test_free_ports_are_distinct_and_avoid_those_of_other_nodes() -> None:
    taken = list(checks.ports())[: len(checks.ports()) - 40]
    ports = checks.free_ports(8, 0, [], taken)
    assert len(set(ports)) == 8
    assert not set(ports) & set(taken)


def test_free_ports_come_from_the_range_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_PORTS", "20500-20599")
    assert set(checks.free_ports(8, 0, [])) <= set(range(20500, 20600))
    for wrong in ("20500", "20599-20500", "80-90", "some"):
        monkeypatch.setenv("LABKIT_PORTS", wrong)
        with pytest.raises(BadInput, match="LABKIT_PORTS"):
            checks.free_ports(1, 0, [])


def test_too_little_disk_names_what_is_needed_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = namedtuple("space", "free")
    monkeypatch.setattr(checks.psutil, "disk_usage", lambda _: space(free=10 * 2**20))
    with pytest.raises(ClusterError, match=r"about 600 MB needed, 10 MB free at .*LABKIT_DATA"):
        checks.check_disk(tmp_path / "not" / "yet", 600 * 2**20, "3 servers")


def test_a_server_that_is_named_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text("lead: postgresql://host1/a\nlead: postgresql://host2/a\n")
    with pytest.raises(BadInput, match=f"{file}: 'lead' is given twice, in lines 1 and 2"):
        connection_strings({"LABKIT_ATTACH": str(file)})
