"""Failover step by step: each method is one step, and `run` takes them all in order.

    failover = FailoverSteps(cluster, cluster.node("pg1"))
    failover.survey()
    ...                     the other steps of labkit.run.steps.FAILOVER, in their order
    failover.close()

Every step is logged with its time, and is refused before the steps that it needs. Cut off anywhere, it can be begun
again with new FailoverSteps: they find out where it is by asking the servers, and from the note on disk.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import psycopg

from labkit import replication
from labkit.errors import ClusterError
from labkit.lab.cluster import promotion, sql, synchronize
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Killable, Repairable
from labkit.lab.failover import candidates, lost, note, offline_state, survivors
from labkit.lab.failover.candidates import Decision, Survivor
from labkit.lab.failover.note import Note
from labkit.lab.failover.policy import Policy
from labkit.remedies import Remedy, advice
from labkit.replication import Replication
from labkit.run import steps
from labkit.run.steps import Step

Log = Callable[..., None]


class Refused(ClusterError):
    """A failover that would lose data, or cannot be done: nothing was promoted. `decision` is the table it rests on."""

    def __init__(
        self, reasons: list[str], decision: Decision | None, *, overridable: bool, remedies: Sequence[Remedy] = ()
    ) -> None:
        self.reasons, self.decision = reasons, decision
        override = Remedy("again", "promotes all the same", accept_data_loss=True)
        helps = [*remedies, override] if overridable else remedies
        super().__init__("nothing was promoted: " + "; ".join(reasons), remedy=helps)


class FailoverSteps:
    """One failover from `old`, the primary that failed: if it is not named, that of a failover that was cut off, else
    the one node that does not answer. `primary_lsn` and `replication` are what was last known of it, `sessions` open
    connections to survivors (Watch has all three); they are closed here.

    Raises ClusterError if another failover of this cluster is under way, or it cannot be told which node has failed.
    """

    def __init__(
        self,
        cluster: Cluster,
        old: Node | None = None,
        policy: Policy | None = None,
        *,
        primary_lsn: int | None = None,
        replication: Replication | None = None,
        sessions: Mapping[str, sql.Connection] | None = None,
        log: Log | None = None,
    ) -> None:
        cluster.check_owned("failed over")
        self.cluster, self.policy = cluster, policy or Policy()
        self.primary_lsn, self.replication = primary_lsn, replication
        self.decision: Decision | None = None
        self.new: Node | None = None
        self._survivors: list[Survivor] = []
        self._promoted: Node | None = None
        """The survivor that an earlier failover, cut off later, had promoted already."""
        self.times_ns: dict[str, int] = {}
        """Step -> when it ended, on the monotonic clock."""
        self.left_behind: dict[str, ClusterError] = {}
        """Survivors that cannot follow the new primary now -> why, and what helps."""
        self._log = log
        self._sessions = dict(sessions or {})
        self._held = contextlib.ExitStack()
        try:
            self._held.enter_context(note.alone_on(cluster))
            before = note.read(cluster)
            self.old = old or (cluster.node(before.old) if before else lost.find(cluster))
        except ClusterError:
            self.close()
            raise
        self._begun = before is not None and before.old == self.old.name
        self._note_on_disk = before if before and self._begun else Note(self.old.name, steps.FAILOVER[0].name)

    # --- the steps ------------------------------------------------------------------------------------------------

    def survey(self) -> list[Survivor]:
        """What every other node has: LSNs, timeline, replay. Nothing more can arrive on any of them afterwards."""
        if self.replication is None:  # it was not watched
            lost.check(self.old, fenced=self._note_on_disk.fenced)
        with self._step(steps.SURVEY) as details:
            others = [node for node in self.cluster.nodes if node is not self.old]
            survivors.connect(others, self._sessions)
            survivors.stop_receivers(self.old, others, self._sessions, self.policy.deadline_s)
            self._survivors = [survivors.look_at(n, self._sessions.get(n.name), self.policy.priorities) for n in others]
            self._promoted = self._primary_among(self._survivors)
            if self.replication is None:
                self.replication = self._promised()
            if self.primary_lsn is None:
                self.primary_lsn = offline_state.last_lsn(self.old)
            details["primary_lsn"] = self.primary_lsn
            details["survivors"] = [vars(survivor) for survivor in self._survivors]
            details["replication"] = f"{self.replication}/{self.replication.level}"
        return self._survivors

    def decide(self) -> Decision:
        """Choose the candidate, or refuse. Raises Refused; the replicas then go on waiting for the old primary."""
        with self._step(steps.DECIDE) as details:
            decision = candidates.decide(self._survivors, self._wanted(), self.primary_lsn, self.policy.max_lag_bytes)
            self.decision = decision = self._as_begun(decision)
            if self._promoted is not None:
                self.new = self._promoted
                details["chosen"] = f"{self.new.name}, promoted before,"
                return decision
            details |= {"table": decision.table(), "choices": decision.choices, "refusals": decision.refusals}
            if decision.impossible:
                self._refuse(list(decision.impossible), overridable=False, remedies=decision.remedies)
            if decision.refusals and not self.policy.accept_data_loss:
                self._refuse(list(decision.refusals), overridable=True, remedies=decision.remedies)
            assert decision.chosen is not None
            self.new = self.cluster.node(decision.chosen.name)
            details["chosen"] = self.new.name
        return decision

    def preflight(self) -> list[str]:
        """Look for what would make the promotion crash or be refused. Raises Refused if there is anything."""
        with self._step(steps.PREFLIGHT) as details:
            new = self._chosen()
            if self._promoted is None and sql.role(self._session(new)) == "primary":
                self._promoted = new  # an earlier failover had asked for it, and was cut off before it was done
            if self._promoted is not None:
                details["primary"] = new.name
                return []
            followers = [(s.name, s.has) for s in self._survivors if s.answers and s.name != new.name and s.has]
            details["problems"] = problems = [
                f"{new.name}: {problem}" for problem in promotion.preflight(self._session(new), followers)
            ]
            if problems:
                self._refuse(problems, overridable=False)
        return problems

    def fence(self) -> None:
        """End the old primary, and mark its data as a replica's: started again, it is no second primary.

        The same goes for every node that does not answer: an earlier failover may have promoted it.
        """
        with self._step(steps.FENCE) as details:
            unfenced: list[str] = []
            if self._note_on_disk.fenced and self.cluster.roles()[self.old.name] == "replica":
                details["replica"] = self.old.name
            else:
                unfenced += self._fence(self.old)
            for survivor in self._survivors:
                begun = survivor.name == self._note_on_disk.promoting
                node = self.cluster.node(survivor.name)
                if not survivor.answers and (begun or not node.control.running()):
                    unfenced += self._fence(node)
            details["unfenced"] = unfenced

    def promote(self) -> Node:
        """The candidate becomes primary. Raises ClusterError with its log's last lines, WaitTimeout."""
        with self._step(steps.PROMOTE) as details:
            new = self._chosen()
            if self._promoted is None:
                self._write_note(promoting=new.name)
                self._note(steps.PROMOTE_CALLED.kind, node=new.name)
                promotion.promote(new, self._session(new), self.policy.deadline_s)
            followers = [s for s in self._survivors if s.answers and s.name != new.name]
            self.left_behind = survivors.cannot_follow(self.cluster, followers, new, self._session(new))
            details |= {"node": new.name, "left_behind": self._left_behind_in_words()}
        return new

    def repair(self) -> dict[str, str | None]:
        """Undo what the new primary has inherited and would hang on: waiting for replicas that are not there."""
        with self._step(steps.REPAIR) as details:
            new = self._chosen()
            wanted = synchronize.settings(self._quorum(held=self.policy.hold_writes), self._standbys())
            inherited = sql.settings(self._session(new), wanted)
            changes = {name: value for name, value in wanted.items() if value != inherited[name]}
            if changes:
                sql.configure(self._session(new), changes)
            details |= {"settings": changes, "found": inherited}
        return changes

    def route(self, send: Callable[[Node], None]) -> None:
        """Send the writers to the new primary: `send` is called with it."""
        with self._step(steps.ROUTE):
            send(self._chosen())

    def repoint(self) -> list[str]:
        """Have the other survivors follow the new primary, slot first, and wait until they stream; their names.

        Those in `left_behind` are told to, but not waited for.
        """
        with self._step(steps.REPOINT) as details:
            new = self._chosen()
            followers = self._followers()
            for name in [*followers, *self.left_behind]:
                self.cluster.node(name).follow(new, self._sessions[name], self._session(new))
            for name in followers:
                self.cluster.node(name).wait_following(new, self._sessions[name], self.policy.deadline_s)
            # What it had been told as a replica would count again after a demotion.
            sql.configure(self._session(new), {"primary_conninfo": None, "primary_slot_name": None})
            if not self.policy.hold_writes:
                sql.configure(self._session(new), synchronize.settings(self._quorum(held=True), self._standbys()))
            details |= {"followers": followers, "left_behind": self._left_behind_in_words()}
        note.remove(self.cluster)
        return followers

    def close(self) -> None:
        """Let go of the connections and of the right to be the only failover."""
        for connection in self._sessions.values():
            with contextlib.suppress(psycopg.Error):
                connection.close()
        self._sessions.clear()
        self._held.close()

    def serves_again(self) -> bool:
        """Whether a failover from it was cut off, and it is the only primary again: `give_up` then."""
        return self._begun and lost.serves_again(self.cluster, self.old)

    def give_up(self) -> None:
        """The old primary serves again: its replicas follow it, as before the failover."""
        survivors.connect([node for node in self.cluster.nodes if node is not self.old], self._sessions)
        survivors.follow_again(self.old, self.cluster, self._sessions)
        note.remove(self.cluster)

    def run(self, on_promoted: Callable[[Node], None] | None = None) -> Node:
        """All steps. `on_promoted` sends the writers to the new primary; the new primary.

        Raises Refused, ClusterError, WaitTimeout.
        """
        for step in steps.FAILOVER:
            if step is not steps.ROUTE:
                getattr(self, step.name)()
            elif on_promoted is not None:
                self.route(on_promoted)
        return self._chosen()

    # --- parts ----------------------------------------------------------------------------------------------------

    def _note(self, kind: str, **details: object) -> None:
        if self._log is not None:
            self._log(kind, **details)

    def _session(self, node: Node) -> sql.Connection:
        return self._sessions[node.name]

    def _chosen(self) -> Node:
        if self.new is None:
            raise ClusterError("no candidate is chosen yet", remedy=advice("survey() and decide() come first"))
        return self.new

    def _wanted(self) -> Replication:
        if self.replication is None:
            raise ClusterError("what commits waited for is not known yet", remedy=advice("survey() comes first"))
        return self.replication

    def _write_note(self, **changes: str | bool | None) -> None:
        self._note_on_disk = replace(self._note_on_disk, **changes)  # type: ignore[arg-type]
        note.write(self.cluster, self._note_on_disk)

    @contextlib.contextmanager
    def _step(self, step: Step) -> Iterator[dict[str, object]]:
        if missing := step.missing(self.times_ns):
            first = ", then ".join(f"{name}()" for name in missing)
            raise ClusterError(f"{step}() does nothing yet: {first} must come first")
        self._write_note(step=step.name, new=self.new.name if self.new else self._note_on_disk.new)
        began = time.monotonic_ns()
        details: dict[str, object] = {}
        try:
            yield details
        except BaseException as error:
            self._note(step.failed, problem=f"{type(error).__name__}: {error}", **details)
            raise
        ended = self.times_ns[step.name] = time.monotonic_ns()
        self._note(step.name, took_ms=(ended - began) / 1e6, **details)

    def _primary_among(self, found: Sequence[Survivor]) -> Node | None:
        """The survivor that an earlier failover, cut off later, had promoted already."""
        primaries = [survivor.name for survivor in found if survivor.role == "primary"]
        if len(primaries) > 1:
            helps = advice("stop the one that is outdated")
            raise ClusterError(f"{' and '.join(primaries)} are both primaries", remedy=helps)
        return self.cluster.node(primaries[0]) if primaries else None

    def _promised(self) -> Replication:
        """What the old primary's commits waited for: the strictest of what the survivors are set to, and its files say.

        labkit gives all nodes the same, but one that was down at that time has kept what it had before.
        """
        found = [synchronize.current(session) for session in self._sessions.values()]
        if (own := offline_state.promised(self.old)) is not None:
            found.append(own)
        return replication.strictest(found)

    def _standbys(self) -> list[str]:
        """The new primary's possible replicas, those that can follow at once first."""
        first = self._followers()
        return [*first, *(n.name for n in self.cluster.nodes if n.name not in (*first, self._chosen().name))]

    def _quorum(self, *, held: bool) -> Replication:
        """What the new primary's commits wait for: as many as before, but no more than can follow it now."""
        wanted = self._wanted()
        k = min(wanted.k, len(self._followers()))
        return Replication(wanted.mode if held and k else "off", k, wanted.level)

    def _followers(self) -> list[str]:
        """The survivors that can follow the new primary at once."""
        others = [s.name for s in self._survivors if s.answers and s.name != self._chosen().name]
        return [name for name in others if name not in self.left_behind]

    def _left_behind_in_words(self) -> dict[str, str]:
        return {name: str(error) for name, error in self.left_behind.items()}

    def _refuse(self, reasons: list[str], *, overridable: bool, remedies: Sequence[Remedy] = ()) -> None:
        """Undo what survey did, so that the replicas go on as before."""
        survivors.follow_again(self.old, self.cluster, self._sessions)
        if not self._note_on_disk.fenced:
            note.remove(self.cluster)
        raise Refused(reasons, self.decision, overridable=overridable, remedies=remedies)

    def _as_begun(self, decision: Decision) -> Decision:
        """Whom an earlier failover has told to become primary is the choice: a second one would split the cluster."""
        begun = next((s for s in self._survivors if s.name == self._note_on_disk.promoting), None)
        if begun is None or self._promoted is not None:
            return decision
        if begun.answers:
            return replace(decision, chosen=begun)
        reason = (
            f"{begun.name} was told to become primary when a failover before this was cut off, and does not answer: "
            "it may have acknowledged commits since"
        )
        helps = advice(f"start {begun.name}")
        return replace(decision, refusals=(reason, *decision.refusals), remedies=(helps, *decision.remedies))

    def _fence(self, node: Node) -> list[str]:
        """Why it is not fenced, where that is overridden; else nothing. Raises Refused."""
        control = node.control
        if control.running():
            if not isinstance(control, Killable):
                self._refuse([f"{node.name} may be alive, and its provider cannot end it"], overridable=False)
            else:
                control.kill("tree")
        problem = f"{node.name} cannot be fenced by its provider: it could come back as a second primary"
        if isinstance(control, Repairable):
            if node is self.old:
                self._write_note(fenced=True)  # before it is: cut off here, the next failover looks at it again
            try:
                control.put("standby.signal", "")
                return []
            except ClusterError as error:
                if node is self.old:
                    self._write_note(fenced=False)
                problem = f"{node.name} cannot be fenced, it could come back as a second primary: {error}"
        if not self.policy.accept_data_loss:
            self._refuse([problem], overridable=True)
        return [problem]
