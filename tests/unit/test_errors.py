"""Errors hold fields; Python, a notebook and a shell each put them into words of their own."""

from __future__ import annotations

import pickle
import shlex
from typing import get_args

import click
import pytest

from labkit import errors, wording
from labkit.cli import main
from labkit.cli import wording as in_cli
from labkit.errors import BadInput, ClusterError, LabkitError, WaitTimeout
from labkit.lab.failover import Refused
from labkit.remedies import Remedy, Verb, advice, setting
from labkit.replication import Replication

REJOIN = Remedy("rejoin", "makes it a replica", node="pg1", name="own", provider="embedded")
EXAMPLES = [
    Remedy("up", "starts it", name="own", provider="docker", replicas=2, base_port=0),
    Remedy("down", name="own", purge=True),
    Remedy("recreate", name="own", provider="docker", base_port=7000),
    Remedy("failover", "promotes a replica", old="pg1", name="own"),
    REJOIN,
    Remedy("rebuild", node="pg1", name="own"),
    Remedy("clean", purge=True, name="own"),
    Remedy("stop_replicas", name="own"),
    Remedy("run", experiment="read-scaling"),
    Remedy("audit", run="failover/20260101T000000Z-abc"),
    Remedy("report", run="failover/20260101T000000Z-abc"),
    Remedy("again", accept_data_loss=True),
    Remedy("install", packages="psycopg[binary]"),
    Remedy("install", kernel="python3"),
    Remedy("open_files", number=4096),
    setting("LABKIT_DATA", "a larger disk"),
    Remedy("sql", statement="SELECT pg_wal_replay_resume()", node="pg2"),
    Remedy("add_account", user="postgres"),
    Remedy("list_contexts"),
    Remedy("use_context", context="CONTEXT"),
    advice("wait for its end"),
]


def test_there_is_an_example_of_every_verb() -> None:
    assert {remedy.verb for remedy in EXAMPLES} == set(get_args(Verb))


@pytest.mark.parametrize("remedy", EXAMPLES, ids=lambda remedy: remedy.verb)
def test_every_verb_has_words_in_python_and_in_the_shell_and_survives_as_plain_values(remedy: Remedy) -> None:
    assert wording.in_python(remedy)
    assert "labkit " not in wording.in_python(remedy).replace("labkit.", "")
    assert Remedy.from_dict(remedy.as_dict()) == remedy
    assert pickle.loads(pickle.dumps(remedy)) == remedy
    for part in in_cli.in_shell(remedy).split("`")[1::2]:
        if part.startswith("labkit "):
            _, *arguments = shlex.split(part)
            takes(main, arguments)


def takes(command: click.Command, arguments: list[str]) -> None:
    """Fails if the command line would not take these words."""
    context = command.make_context(command.name, list(arguments))
    if isinstance(command, click.Group):
        name, chosen, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name, arguments
        assert chosen is not None
        takes(chosen, rest)


def test_the_shell_s_words() -> None:
    for remedy, line in (
        (REJOIN, "`labkit rejoin pg1 --name own`"),
        (EXAMPLES[0], "`labkit up --replicas 2 --base-port 0 --name own --provider docker`"),
        (Remedy("up", name="two words"), "`labkit up --name 'two words'`"),
        (Remedy("recreate", name="own"), "`labkit down --purge --name own`, then `labkit up --name own`"),
        (Remedy("again", accept_data_loss=True), "`--accept-data-loss`"),
        (Remedy("install", packages="psycopg[binary] b<2"), "`pip install 'psycopg[binary]' 'b<2'`"),
        (Remedy("stop_replicas", name="own"), "`labkit replicas stop --name own`"),
        (Remedy("add_account", user="postgres"), "`useradd --system postgres`"),
        (Remedy("list_contexts"), "`docker context ls`"),
        (Remedy("use_context", context="CONTEXT"), "`docker context use CONTEXT`"),
    ):
        assert in_cli.in_shell(remedy) == line


def test_python_s_words() -> None:
    for remedy, said in (
        (REJOIN, "rejoining pg1 to cluster own"),
        (Remedy("up", name="own", provider="docker"), '`labkit.up("own", provider="docker")`'),
        (Remedy("recreate", name="own"), '`labkit.down("own", purge=True)`, then `labkit.up("own")`'),
        (Remedy("again", accept_data_loss=True), "`accept_data_loss=True`"),
        (setting("LABKIT_DATA", "a larger disk"), "set LABKIT_DATA to a larger disk"),
        (Remedy("add_account", user="postgres"), "adding a system account postgres"),
        (Remedy("list_contexts"), "Docker's list of contexts"),
        (Remedy("use_context", context="CONTEXT"), "choosing CONTEXT as Docker's context"),
    ):
        assert wording.in_python(remedy) == said


def test_several_remedies_are_one_list() -> None:
    one, two, three = (advice(words) for words in ("wait", "try again", "give up"))
    assert wording.suggest([one]) == "wait"
    assert wording.suggest([one, two]) == "wait, or try again"
    assert wording.suggest([one, two, three]) == "wait, try again, or give up"
    assert wording.suggest([]) == ""


def test_an_error_is_one_sentence_with_what_helps_and_the_log() -> None:
    error = ClusterError("it hangs", node="pg1", remedy=[REJOIN, advice("wait")], log_tail="one\ntwo\n")
    error.add_note("What was measured is kept.")
    assert str(error) == (
        "pg1: it hangs; rejoining pg1 to cluster own makes it a replica, or wait\n"
        "  last lines of the log of pg1:\n    one\n    two"
    )
    assert in_cli.explain(error) == (
        "pg1: it hangs; `labkit rejoin pg1 --name own` makes it a replica, or wait\n"
        "  last lines of the log of pg1:\n    one\n    two\nWhat was measured is kept."
    )
    assert (error.remedy, str(ClusterError("plain")), ClusterError("plain").remedy) == (REJOIN, "plain", None)


@pytest.mark.parametrize(
    "error",
    [
        WaitTimeout("timed out", node="pg2", remedy=REJOIN, log_tail="line"),
        BadInput(["one", "two"], subject="limits", remedy=advice("think")),
        BadInput("alone"),
        Refused(["the quorum cannot be proven"], None, overridable=True),
        *(getattr(errors, name)("x", remedy=REJOIN) for name in ("LoadError", "RunNotFound", "ProviderUnavailable")),
    ],
)
def test_an_error_reaches_another_process_whole(error: LabkitError) -> None:
    error.add_note("on its way")
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert vars(there) == vars(error)
    assert str(there) == str(error)
    again = LabkitError.from_dict(error.as_dict())
    assert (str(again), again.notes) == (str(error), error.notes)


def test_a_notebook_shows_where_it_called_labkit_and_not_the_way_through_it() -> None:
    with pytest.raises(BadInput) as caught:
        Replication.parse("SOME 1")
    shown = caught.value._render_traceback_()
    assert shown[0].endswith(': Replication.parse("SOME 1")')
    assert shown[1:] == ["BadInput: 'SOME 1' is no replication mode; there are: off, FIRST k, ANY k"]
