"""Failover step by step: each method is one step, and `run` takes them all in order.

    failover = FailoverSteps(cluster, cluster.node("pg1"))
    failover.survey()       what every survivor has, once nothing more can arrive
    failover.decide()       the decision table
    failover.preflight()    what would make the promotion fail
    failover.fence()        the old primary cannot come back as a second one
    failover.promote()
    failover.repair()       what the new primary has inherited and would hang on
    failover.route(send)    send(new) sends the writers there
    failover.repoint()      the other replicas follow it
    failover.close()

Every step is logged with its time. Cut off between two steps, it can be begun again with new FailoverSteps: they find
out where it is by asking the servers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import psycopg

from labkit import faults, postgres, project, synchronous
from labkit.cluster import Cluster, Node, wait_until
from labkit.errors import ClusterError, WaitTimeout
from labkit.failover import candidates, note, promotion
from labkit.failover.candidates import Decision, Survivor
from labkit.providers import state
from labkit.providers.base import Killable, Repairable
from labkit.synchronous import Synchronous

OVERRIDE = "--accept-data-loss"
_ENDING_BY_ITSELF_S = 0.1

Log = Callable[..., None]


class Refused(ClusterError):
    """A failover that would lose data, or cannot be done: nothing was promoted. `decision` is the table it rests on."""

    def __init__(self, reasons: list[str], decision: Decision | None, *, overridable: bool) -> None:
        self.reasons, self.decision = reasons, decision
        text = "nothing was promoted: " + "; ".join(reasons)
        if overridable:
            text += f". {OVERRIDE} promotes all the same (accept_data_loss=True)"
        super().__init__(text)


@dataclass(frozen=True)
class Policy:
    """What a failover may do.

    Attributes:
        max_lag_bytes: a replica further behind the primary's last known position is not promoted.
        accept_data_loss: promote although committed rows may be lost. What cannot be promoted at all stays refused.
        priorities: node -> priority, as the managers have it: higher is preferred among equals, 0 never.
        hold_writes: the new primary acknowledges nothing until a replica follows it, if the old one waited for one.
            Without it writes go on sooner, and for that moment are on one server only.
        deadline_s: of each step.
    """

    max_lag_bytes: int = 16 * 2**20
    accept_data_loss: bool = False
    priorities: Mapping[str, int] = field(default_factory=dict)
    hold_writes: bool = True
    deadline_s: float = 30.0


class FailoverSteps:
    """One failover from `old`, the primary that failed. `primary_lsn` and `replication` are what was last known of it,
    `sessions` open connections to survivors (Watch has all three); they are closed here.

    Raises ClusterError if another failover of this cluster is under way.
    """

    def __init__(
        self,
        cluster: Cluster,
        old: Node,
        policy: Policy | None = None,
        *,
        primary_lsn: int | None = None,
        replication: Synchronous | None = None,
        sessions: Mapping[str, postgres.Connection] | None = None,
        log: Log | None = None,
    ) -> None:
        cluster.check_owned("failed over")
        self.cluster, self.old, self.policy = cluster, old, policy or Policy()
        self.primary_lsn, self.replication = primary_lsn, replication
        self.decision: Decision | None = None
        self.new: Node | None = None
        self._survivors: list[Survivor] = []
        self._promoted: Node | None = None
        """The survivor that an earlier failover, cut off later, had promoted already."""
        self.times_ns: dict[str, int] = {}
        """Step -> when it ended, on the monotonic clock."""
        self._log = log
        self._sessions = dict(sessions or {})
        self._sources: dict[str, str] = {}
        self._held = contextlib.ExitStack()
        try:
            self._held.enter_context(state.locked(project.clusters(), f"{cluster.name}.failover", 0))
        except WaitTimeout as error:
            raise ClusterError(
                f"a failover of cluster {cluster.name} is under way already; wait for its end"
            ) from error

    # --- the steps ------------------------------------------------------------------------------------------------

    def survey(self) -> list[Survivor]:
        """What every other node has: LSNs, timeline, replay. Nothing more can arrive on any of them afterwards."""
        with self._step("survey") as details:
            others = [node for node in self.cluster.nodes if node is not self.old]
            for node in others:
                if _is_open(self._sessions.get(node.name)):
                    continue
                self._sessions.pop(node.name, None)
                with contextlib.suppress(ClusterError):
                    self._sessions[node.name] = node.connect(connect_timeout=2)
            self._stop_receivers([node for node in others if node.name in self._sessions])
            self._survivors = [self._look_at(node) for node in others]
            if self.replication is None:
                self.replication = self._promised()
            details["survivors"] = [vars(survivor) for survivor in self._survivors]
            details["replication"] = f"{self.replication}/{self.replication.level}"
        return self._survivors

    def decide(self) -> Decision:
        """Choose the candidate, or refuse. Raises Refused; the replicas then go on waiting for the old primary."""
        with self._step("decide") as details:
            assert self.replication is not None
            decision = candidates.decide(self._survivors, self.replication, self.primary_lsn, self.policy.max_lag_bytes)
            self.decision = decision
            if self._promoted is not None:
                self.new = self._promoted
                details["chosen"] = f"{self.new.name}, promoted before"
                return decision
            details |= {"table": decision.table(), "choices": decision.choices, "refusals": decision.refusals}
            if decision.impossible:
                self._refuse(list(decision.impossible), overridable=False)
            if decision.refusals and not self.policy.accept_data_loss:
                self._refuse(list(decision.refusals), overridable=True)
            assert decision.chosen is not None
            self.new = self.cluster.node(decision.chosen.name)
            details["chosen"] = self.new.name
        return decision

    def preflight(self) -> list[str]:
        """Look for what would make the promotion crash or be refused. Raises Refused if there is anything."""
        with self._step("preflight") as details:
            new = self._chosen()
            if self._promoted is not None:
                return []
            followers = [(s.name, s.has) for s in self._survivors if s.answers and s.name != new.name and s.has]
            details["problems"] = problems = promotion.preflight(new, followers, self._session(new))
            if problems:
                self._refuse(problems, overridable=False)
        return problems

    def fence(self) -> None:
        """End the old primary, and mark its data as a replica's: whoever starts it gets no second primary."""
        with self._step("fence"):
            control = self.old.control
            if control.running():
                if not isinstance(control, Killable):
                    self._refuse([f"{self.old.name} may be alive, and its provider cannot end it"], overridable=False)
                else:
                    control.kill("tree")
            if isinstance(control, Repairable):
                control.put("standby.signal", "")
            elif not self.policy.accept_data_loss:
                self._refuse(
                    [f"{self.old.name} cannot be fenced by its provider: it could come back as a second primary"],
                    overridable=True,
                )

    def promote(self) -> Node:
        """The candidate becomes primary. Raises ClusterError with its log's last lines, WaitTimeout."""
        with self._step("promote") as details:
            new = self._chosen()
            if self._promoted is None:
                self._note("promote_called", node=new.name)
                promotion.promote(new, self._session(new), self.policy.deadline_s)
            details["node"] = new.name
        return new

    def repair(self) -> dict[str, str | None]:
        """Undo what the new primary has inherited and would hang on: waiting for replicas that are not there."""
        with self._step("repair") as details:
            new = self._chosen()
            assert self.replication is not None
            wanted = synchronous.settings(self._quorum(held=self.policy.hold_writes), self._standbys())
            inherited = postgres.settings(self._session(new), wanted)
            changes = {name: value for name, value in wanted.items() if value != inherited[name]}
            if changes:
                postgres.configure(self._session(new), changes)
            details["settings"] = changes
        return changes

    def route(self, send: Callable[[Node], None]) -> None:
        """Send the writers to the new primary: `send` is called with it."""
        with self._step("route"):
            send(self._chosen())

    def repoint(self) -> list[str]:
        """Have the other survivors follow the new primary, slot first, and wait until they stream; their names."""
        with self._step("repoint") as details:
            new = self._chosen()
            followers = [s.name for s in self._survivors if s.answers and s.name != new.name]
            for name in followers:
                postgres.create_slot(self._session(new), name)
                self.cluster.node(name).follow(new, self._sessions[name])
            for name in followers:
                self.cluster.node(name).wait_following(new, self._sessions[name], self.policy.deadline_s)
            # What it had been told as a replica would count again after a demotion.
            postgres.configure(self._session(new), {"primary_conninfo": None, "primary_slot_name": None})
            assert self.replication is not None
            if not self.policy.hold_writes:
                postgres.configure(self._session(new), synchronous.settings(self._quorum(held=True), self._standbys()))
            details["followers"] = followers
        note.remove(self.cluster.name)
        return followers

    def close(self) -> None:
        """Let go of the connections and of the right to be the only failover."""
        for connection in self._sessions.values():
            with contextlib.suppress(psycopg.Error):
                connection.close()
        self._sessions.clear()
        self._held.close()

    def run(
        self, on_promoted: Callable[[Node], None] | None = None, before_repoint: Callable[[], None] | None = None
    ) -> Node:
        """All steps. `on_promoted` sends the writers to the new primary; the new primary.

        Raises Refused, ClusterError, WaitTimeout.
        """
        self.survey()
        self.decide()
        self.preflight()
        self.fence()
        new = self.promote()
        self.repair()
        self.route(on_promoted or (lambda _: None))
        if before_repoint is not None:
            before_repoint()
        self.repoint()
        return new

    # --- parts ----------------------------------------------------------------------------------------------------

    def session(self, name: str) -> postgres.Connection:
        """The open connection to a survivor."""
        return self._sessions[name]

    def _note(self, kind: str, **details: object) -> None:
        if self._log is not None:
            self._log(kind, **details)

    def _session(self, node: Node) -> postgres.Connection:
        return self._sessions[node.name]

    def _chosen(self) -> Node:
        if self.new is None:
            raise ClusterError("no candidate is chosen yet: survey() and decide() come first")
        return self.new

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[dict[str, object]]:
        note.write(self.cluster.name, {"step": name, "old": self.old.name, "new": self.new and self.new.name})
        began = time.monotonic_ns()
        details: dict[str, object] = {}
        try:
            yield details
        except BaseException as error:
            self._note(f"{name}_failed", problem=f"{type(error).__name__}: {error}", **details)
            raise
        ended = self.times_ns[name] = time.monotonic_ns()
        self._note(name, took_ms=(ended - began) / 1e6, **details)

    def _stop_receivers(self, nodes: list[Node]) -> None:
        """Those that lost their primary stop by themselves; others, whose primary hangs, are told to."""

        def silent() -> bool:
            return not any(postgres.receives(self._session(node)) for node in nodes)

        if not self.old.control.running():
            with contextlib.suppress(WaitTimeout):
                wait_until(silent, _ENDING_BY_ITSELF_S, "the WAL receivers to stop", interval_s=0.002)
                return
        for node in nodes:
            if postgres.role(self._session(node)) == "primary":
                continue
            self._sources[node.name] = faults.stop_receiving(node, self.policy.deadline_s)

    def _look_at(self, node: Node) -> Survivor:
        priority = self.policy.priorities.get(node.name, candidates.DEFAULT_PRIORITY)
        session = self._sessions.get(node.name)
        if session is None:
            return Survivor(node.name, answers=False, priority=priority)
        position = postgres.wal_position(session)
        if position.role == "primary":
            self._promoted = node
            return Survivor(
                node.name, received=position.flushed, timeline=postgres.timeline(session), priority=priority
            )
        return Survivor(
            node.name,
            received=position.received,
            replayed=position.replayed,
            timeline=postgres.timeline(session),
            replay_paused=postgres.replay_paused(session),
            priority=priority,
        )

    def _promised(self) -> Synchronous:
        """What the old primary's commits waited for, from a survivor's settings: labkit gives all nodes the same."""
        for session in self._sessions.values():
            return synchronous.current(session)
        return Synchronous("off")

    def _standbys(self) -> list[str]:
        """The new primary's possible replicas, those that can follow at once first."""
        answering = [s.name for s in self._survivors if s.answers and s.name != self._chosen().name]
        return [*answering, *(n.name for n in self.cluster.nodes if n.name not in (*answering, self._chosen().name))]

    def _quorum(self, *, held: bool) -> Synchronous:
        """What the new primary's commits wait for: as many as before, but no more than can follow it now."""
        assert self.replication is not None
        followers = sum(1 for s in self._survivors if s.answers and s.name != self._chosen().name)
        k = min(self.replication.k, followers)
        mode = self.replication.mode if held and k else "off"
        return Synchronous(mode, k, self.replication.level)

    def _refuse(self, reasons: list[str], *, overridable: bool) -> None:
        """Undo what survey did, so that the replicas go on as before."""
        for name, source in self._sources.items():
            faults.start_receiving(self.cluster.node(name), source)
        note.remove(self.cluster.name)
        raise Refused(reasons, self.decision, overridable=overridable)


def _is_open(connection: postgres.Connection | None) -> bool:
    """Whether a connection that was opened earlier still answers."""
    if connection is None:
        return False
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
