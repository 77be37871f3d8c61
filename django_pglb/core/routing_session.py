"""What one unit of work (request, job, block) has written, must see and was given."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .asker import NO_REQUEST
from .decision import Decision, DecisionCount, Reason
from .lsn import Pointer, are_comparable, earlier, later, renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .asker import Asker
    from .lease import Lease

Identity = tuple[str, str]
"""A kind ("session", "user", …) and a value: who a unit of work acts for."""


class Bound(NamedTuple):
    """What binds a reader: the position not to read behind, and until when no replica can prove anything to them.

    `pinned_until` and the pointer's `written_at` are seconds of one clock: the caller's `now` here, wall time in a store.
    """

    pointer: Pointer | None = None
    pinned_until: float = 0.0

    def merged(self, other: Bound) -> Bound:
        """Return what binds a reader who is bound by both."""
        return Bound(later(self.pointer, other.pointer), max(self.pinned_until, other.pinned_until))

    def renewed(self, now: Bound) -> Bound:
        """Return what binds whoever was bound by this and is by `now`, whose pointer was taken on the primary that there is now."""
        return Bound(renewed(self.pointer, now.pointer), max(self.pinned_until, now.pinned_until))

    def shifted(self, seconds: float) -> Bound:
        """Return the same on a clock that is `seconds` ahead."""
        pointer = self.pointer
        if pointer is not None and pointer.written_at:
            pointer = pointer._replace(written_at=pointer.written_at + seconds)
        return Bound(pointer, self.pinned_until + seconds if self.pinned_until else 0.0)


UNBOUND = Bound()


class IdentitySource(Protocol):
    """Where a unit of work's identities come from."""

    def known(self) -> Iterable[Identity]:
        """Return what is known without touching the database."""
        ...

    def revealed(self) -> Iterable[Identity]:
        """Return also what the user's session reveals; this may run routed reads."""
        ...

    def asker(self) -> Asker:
        """Act for whoever is on the request by now, and return who that is."""
        ...

    def is_settled(self) -> bool:
        """Say whether no later call of `revealed` can tell more, unless the asker changes."""
        ...

    def is_complete(self) -> bool:
        """Say whether it is known by now whom everything that came with the request belongs to."""
        ...

    def to_bind(self) -> Iterable[Identity]:
        """Return everything that a pointer must be saved under, at the end of the unit of work."""
        ...

    def ended(self) -> Iterable[Identity]:
        """Return those that are there no more: to be bound by what was written, so that nobody finds them on a replica again."""
        ...

    def acts_for_somebody(self) -> bool:
        """Say whether any of them is known, as a session that exists and a user that was found are; this may run routed reads."""
        ...

    def add(self, kind: str, value: str) -> None:
        """Act for one more identity from now on."""
        ...

    def carried(self, primary: str) -> Bound:
        """Return what the client itself carries for a cluster (signed by us), on the wall clock."""
        ...


class Nobody:
    """A unit of work that acts for nobody in particular."""

    def known(self) -> Iterable[Identity]:
        return ()

    revealed = to_bind = ended = known

    def acts_for_somebody(self) -> bool:
        return False

    def asker(self) -> Asker:
        return NO_REQUEST

    def is_settled(self) -> bool:
        return True

    is_complete = is_settled

    def add(self, kind: str, value: str) -> None:
        """Ignore it: nothing is saved for a unit of work that was opened for nobody."""

    def carried(self, primary: str) -> Bound:
        return UNBOUND


class ClusterSession:
    """One unit of work's dealings with one cluster.

    Threads of one unit of work may share it: fields are rebound, never changed in place, but for `proofs`,
    in which each thread touches keys of its own, `decisions`, where a race loses at most a count, and what `bind` takes care of.
    """

    __slots__ = (
        "_bounds",
        "asked",
        "asker",
        "binds_next",
        "bound",
        "changed_session",
        "chosen",
        "chosen_stale",
        "decisions",
        "excluded",
        "latest",
        "lease",
        "left_behind",
        "loaded",
        "look_again_at",
        "may_be_committed",
        "must_renew",
        "outcome_unknown",
        "primary",
        "proofs",
        "reached_lsn",
        "remembered",
        "saved",
        "saw_unknown",
        "seen",
        "shows",
        "state",
        "stays",
        "store_down",
        "waited",
        "was_refused",
        "without_primary",
        "written",
    )

    def __init__(self, primary: str) -> None:
        self.primary = primary
        self.state: object = object()
        """Stands for all that routing goes by here. A new object whenever any of that has changed."""
        self.lease: Lease | None = None
        """The latest answer of the rules that may be used again while `state` is what it was."""
        self.bound = UNBOUND
        self._bounds: list[Any] = [UNBOUND]
        """The latest version of `bound`, or one shortly before: itself, and behind it those that threads made of it. The first holds."""
        self.loaded = False
        """Everything that can be known of what binds this unit of work is in `bound`."""
        self.asker = NO_REQUEST
        """Whom the request acted for when the store was asked."""
        self.asked: frozenset[Identity] = frozenset()
        """The identities that the store has answered about."""
        self.look_again_at = 0.0
        """When the next routed read asks anew what binds this unit of work, on the caller's clock."""
        self.store_down = False
        self.written: object = None
        """Stands for the latest write. A new object for each, so that no thread can take one for another."""
        self.saved: object = None
        """The latest write that a saved pointer covers."""
        self.left_behind: object = None
        """The latest write that keeps no read on the primary any more: its own pointer does, where it must."""
        self.changed_session = False
        """It has told a database session on the primary what no replica knows, and stays there until it ends."""
        self.may_be_committed = False
        """Something that it wrote may have been committed. Else no later read can miss it."""
        self.was_refused = False
        """The primary could not be connected to when something was to run there."""
        self.waited = False
        """This unit of work has had its wait for a replica (`WAIT_SECONDS`)."""
        self.outcome_unknown = False
        """A commit was sent and its answer never came: it may still be running."""
        self.must_renew = False
        """What binds this unit of work is of another timeline or system than the primary's: no replica can ever prove it."""
        self.seen: dict[int, Pointer] = {}
        """Serial number of a connection -> the upper bound of what reads on it have seen (kept where reads must be monotonic)."""
        self.remembered: Pointer | None = None
        """What is known to be remembered for each of those whom this unit of work acts for."""
        self.saw_unknown = False
        """A read saw something whose position could not be asked."""
        self.chosen: str | None = None
        self.reached_lsn = -1
        """The position that `chosen` has proved to this unit of work."""
        self.chosen_stale: str | None = None
        """The replica that answers reads for which stale is fine."""
        self.excluded: dict[str, Reason] = {}
        """Replicas that failed this unit of work (`failover`), or proved to be behind (`behind`)."""
        self.stays: Reason | None = None
        """Why this unit of work reads from the primary from now on: it was answered there for want of a replica."""
        self.without_primary = False
        """The primary could not be reached when it was to answer for want of a replica, so replicas are asked against the odds."""
        self.proofs: dict[int, int] = {}
        """Serial number of a connection -> the position proved on it."""
        self.latest: Decision | None = None
        """The router's latest answer."""
        self.binds_next = False
        """The router's latest answer was about a read that is bound inside `use_replicas()` too."""
        self.decisions: dict[Decision, int] = {}
        self.shows: Pointer | None = None
        """What every read so far has shown at least, as it was bound by it."""

    def bind(self, bound: Bound) -> None:
        """Bind this unit of work by `bound` as well. Threads may do so at once, and none undoes what another one did."""
        if self.bound.merged(bound) == self.bound:
            return  # as nearly always
        self._bind(bound, Bound.merged)

    def renew(self, bound: Bound) -> None:
        """Bind this unit of work by `bound`, whose pointer was just taken on the primary: what is of another system binds no more."""
        self._bind(bound, Bound.renewed)

    def _bind(self, bound: Bound, with_former: Callable[[Bound, Bound], Bound]) -> None:
        latest = self._bounds
        while True:
            while len(latest) > 1:
                latest = latest[1]
            merged = with_former(latest[0], bound)
            if merged != latest[0]:
                mine = [merged]
                latest.append(mine)
                # Appending is atomic: of the versions that threads make of the same one, one is the first, and the others are made anew.
                if latest[1] is not mine:
                    continue
                latest = mine
            self._bounds, self.bound = latest, merged
            # A thread that is late has put an older version here, finds out, and puts the newer one in its place.
            if len(latest) == 1:
                break
        self.touch()

    def touch(self) -> None:
        """Note that something has changed that routing goes by. To be called after the change: a lease that was made before is void."""
        self.state = object()

    @property
    def wrote(self) -> bool:
        """Whether reads belong on the primary, which alone is sure to have what this unit of work wrote."""
        return self.written is not self.left_behind

    @property
    def must_save(self) -> bool:
        """Whether something was committed, or may have been, that no saved pointer covers yet."""
        return self.written is not self.saved

    def note_write(self) -> None:
        self.written = object()
        self.touch()

    @property
    def was_answered_by_primary(self) -> bool:
        """Whether a statement of this unit of work ran on the primary, and so may have seen the newest there is."""
        return any(alias == self.primary for alias, _ in tuple(self.decisions))

    def note_session_change(self) -> None:
        """Note that this unit of work has changed its database session: it stays there until it ends."""
        if not self.changed_session:
            self.changed_session = True
            self.touch()

    def note_unknown_outcome(self) -> None:
        self.outcome_unknown = self.may_be_committed = True
        self.note_write()

    def follow(self, other: ClusterSession) -> None:
        """Keep reads on the primary if `other`, of the unit of work around this one, keeps its own there."""
        if other.changed_session:
            self.note_session_change()
        if other.wrote:
            self.written = self.saved = object()
            self.touch()

    def look_again(self, until: float, *, may_leave: bool = True) -> None:
        """Forget what a long unit of work must not rest on for ever. What it must see stays, and so does its replica while that is fit.

        `until`: when to do so again. `may_leave`: what units of work around this one wrote is saved. Threads may do this at once.
        """
        self.look_again_at = until
        if not self.saw_unknown:  # else the primary alone is sure to have what was seen
            self.stays = None
            if may_leave:
                self.left_behind = self.saved
        self.excluded = {}
        self.without_primary = self.store_down = False
        self.loaded, self.asked = False, frozenset()
        self.touch()

    def ask_again(self) -> None:
        """Let the next routed read ask what binds this unit of work: it acts for somebody more."""
        self.loaded = False
        self.touch()

    def note_remembered(self, pointers: Iterable[Pointer | None]) -> None:
        """Note what is remembered for more of those whom this unit of work acts for; whoever knows least counts."""
        known = [*pointers, *([self.remembered] if self.asked else [])]
        self.remembered = reduce(earlier, known) if known else None

    def see(self, serial: int, pointer: Pointer | None) -> None:
        """Note that a read on the connection numbered `serial` saw nothing beyond `pointer`; None: that is not known."""
        if pointer is None:
            self.saw_unknown = True
        else:
            self.seen[serial] = later(pointer, self.seen.get(serial)) or pointer

    @property
    def seen_at_most(self) -> Pointer | None:
        """The upper bound of all that this unit of work is known to have seen."""
        return reduce(later, tuple(self.seen.values()), None)

    @property
    def must_remember(self) -> bool:
        """Whether it saw more than is remembered, or is bound by what is worth nothing any more."""
        if self.saw_unknown or self.must_renew:
            return True
        seen, remembered = self.seen_at_most, self.remembered
        return seen is not None and (remembered is None or not are_comparable(seen, remembered) or seen[:2] > remembered[:2])

    def wanted_lsn(self, mark: int, serial: int | None) -> int | None:
        """Return the position that the connection numbered `serial`, to the host with this mark, must prove; None if none.

        What was seen on that very connection needs no proof there. What was seen on others does. A pooler's connection is no such thing:
        `serial` None.
        """
        pointer = self.bound.pointer
        for other, seen in tuple(self.seen.items()):
            if other != serial:
                pointer = later(pointer, seen)
        return None if pointer is None else pointer.lsn_on(mark)

    def count(self, decision: Decision) -> None:
        """Count a statement that was answered as `decision` says."""
        if decision.reason is Reason.STALE_ALLOWED:
            self.shows = None
        elif not self.decisions:
            # Later reads can only be bound by more.
            self.shows = self.bound.pointer
        self.decisions[decision] = self.decisions.get(decision, 0) + 1

    def exclude(self, alias: str, reason: Reason) -> None:
        """Never use `alias` again in this unit of work."""
        self.excluded = {**self.excluded, alias: reason}
        if self.chosen == alias:
            self.chosen, self.reached_lsn = None, -1
        if self.chosen_stale == alias:
            self.chosen_stale = None
        self.touch()

    def choose(self, alias: str) -> None:
        if alias != self.chosen:
            # Without a choice there was no lease either.
            had_another = self.chosen is not None
            self.chosen, self.reached_lsn = alias, -1
            if had_another:
                self.touch()

    def prove(self, alias: str, serial: int, lsn: int) -> None:
        """Note that the connection numbered `serial`, to `alias`, has shown to have replayed `lsn`."""
        self.proofs[serial] = lsn
        if alias == self.chosen:
            self.reached_lsn = max(self.reached_lsn, lsn)

    def return_to(self, alias: str, serial: int, lsn: int) -> None:
        """Leave the primary for a replica that has shown `lsn` after all."""
        self.excluded = {other: reason for other, reason in self.excluded.items() if other != alias}
        self.stays = None
        self.choose(alias)
        self.prove(alias, serial, lsn)
        self.touch()

    def stay_on_primary(self, reason: Reason) -> None:
        self.stays = reason
        self.chosen = None
        self.touch()

    def do_without_primary(self) -> None:
        """Let replicas answer against the odds, also those that were behind when they were asked before."""
        self.without_primary, self.stays = True, None
        self.excluded = {alias: reason for alias, reason in self.excluded.items() if reason is not Reason.BEHIND}
        self.touch()


class RoutingSession:
    """One unit of work. Open one per request, job or block; never share it between users."""

    __slots__ = (
        "__weakref__",
        "clusters",
        "down_at_start",
        "has_ended",
        "identities",
        "is_request",
        "outer",
        "outside_at_start",
        "replica_reads",
        "safe_in",
        "safe_method",
        "streams",
        "view_atomic",
        "view_ran",
        "was_refused",
    )

    def __init__(self, identities: IdentitySource | None = None, *, safe_method: bool = True, is_request: bool = False) -> None:
        self.identities: IdentitySource = identities or Nobody()
        self.safe_method = safe_method
        self.safe_in: frozenset[str] = frozenset()
        """Primaries of the clusters whose `REPLICA_METHODS` has the request's method, though that of others has not."""
        self.is_request = is_request
        """Somebody waits for a response, so nothing may be waited for here."""
        self.replica_reads = False
        """The view asked for `replica_reads()`, so an unsafe method alone does not mean that it wrote."""
        self.view_atomic: frozenset[str] = frozenset()
        """Aliases for which Django will wrap this request's view in a transaction (`ATOMIC_REQUESTS`), until it has."""
        self.view_ran = False
        """Django has called the view of this request, whose method is unsafe: nobody else has answered in its place."""
        self.was_refused = False
        """The response is that whoever sent this request must say who they are (401), or may not do this (403)."""
        self.down_at_start: frozenset[str] = frozenset()
        """Primaries that were known to be down when it began, so that nobody can have written to them unseen."""
        self.outside_at_start: Mapping[str, int] = {}
        """Primary -> the number of its latest use outside any request in this process, when this unit began."""
        self.outer: RoutingSession | None = None
        """The unit of work that this one was opened in."""
        self.has_ended = False
        """What it wrote has been saved. Tasks that it has started may write more."""
        self.streams = False
        """Its response is being streamed. Tasks that it has started write more, and the next chunk may be long in coming."""
        self.clusters: dict[str, ClusterSession] = {}

    def end(self) -> None:
        """Note that it is about to be saved for the last time.

        To be called before one looks at what is to be saved: what a task that is still running commits after that look, it saves itself,
        and nothing falls between the two.
        """
        self.has_ended = True
        # A lease leads back to its unit of work. Left alone, every request would wait for the garbage collector, with all that it read.
        for cluster in tuple(self.clusters.values()):
            cluster.lease = None

    def cluster(self, primary: str) -> ClusterSession:
        """Return the dealings with the cluster of `primary`."""
        found = self.clusters.get(primary)
        return found if found is not None else self.clusters.setdefault(primary, ClusterSession(primary))

    def is_safe_in(self, primary: str) -> bool:
        """Whether the request's method is one that reads from replicas in the cluster of `primary`."""
        return self.safe_method or primary in self.safe_in

    def around(self) -> Iterator[RoutingSession]:
        """Return the units of work that this one is in, from the inside out."""
        outer = self.outer
        while outer is not None:
            yield outer
            outer = outer.outer

    def look_again(self, primary: str, until: float) -> None:
        """Let the next routed read in the cluster of `primary` ask anew what binds this unit of work."""
        may_leave = self.outer is None or not self.outer.has_unsaved(primary)
        self.cluster(primary).look_again(until, may_leave=may_leave)

    def has_unsaved(self, primary: str) -> bool:
        """Whether this unit of work, or one around it, wrote to the cluster of `primary` what no saved pointer covers yet."""
        return any(unit.cluster(primary).must_save for unit in (self, *self.around()))

    @property
    def is_saved_late(self) -> bool:
        """Whether what tasks of this unit of work write must be saved by themselves."""
        return self.has_ended or self.streams

    @property
    def is_taken_to_have_written(self) -> bool:
        """Whether a request's unsafe method means that its view may write unseen: in threads that it starts, by services that it calls."""
        return not self.safe_method and not self.replica_reads

    def note_may_be_committed(self, primary: str) -> None:
        """Note that what this unit of work wrote, and so those around it, may be committed."""
        for unit in (self, *self.around()):
            unit.cluster(primary).may_be_committed = True

    def note_refused(self, primary: str) -> None:
        """Note that the primary could not be connected to."""
        for unit in (self, *self.around()):
            unit.cluster(primary).was_refused = True

    def was_only_refused(self, primary: str) -> bool:
        """Whether every attempt to run something on the primary ended before anything was sent."""
        cluster = self.clusters.get(primary)
        return cluster is not None and cluster.was_refused and not cluster.was_answered_by_primary

    def has_used(self, primary: str) -> bool:
        """Whether a read of the cluster of `primary` was placed, or a statement ran there, in this unit of work or in one around it."""
        cluster = self.clusters.get(primary)
        if cluster is not None and (cluster.latest is not None or cluster.decisions or cluster.wrote):
            return True
        return self.outer is not None and self.outer.has_used(primary)

    def inherit(self, outer: RoutingSession) -> None:
        """Begin inside another unit of work: what that one must see, this one must see."""
        self.outer = outer
        self.is_request, self.view_atomic = outer.is_request, outer.view_atomic
        self.safe_method, self.safe_in = outer.safe_method, outer.safe_in
        self.replica_reads, self.outside_at_start = outer.replica_reads, outer.outside_at_start
        for primary, theirs in tuple(outer.clusters.items()):
            self.cluster(primary).follow(theirs)

    def bequeath(self, outer: RoutingSession) -> None:
        """End inside another unit of work, before saving: what this one wrote, that one has written, and was answered."""
        self.tell(outer)
        for primary, ours in tuple(self.clusters.items()):
            theirs = outer.cluster(primary)
            if ours.decisions:
                theirs.shows = earlier(theirs.shows, ours.shows) if theirs.decisions else ours.shows
            for decision, count in tuple(ours.decisions.items()):
                theirs.decisions[decision] = theirs.decisions.get(decision, 0) + count

    def tell(self, outer: RoutingSession) -> None:
        """Let the unit of work around this one have written and seen what this one has, which is to be saved and goes on."""
        for primary, ours in tuple(self.clusters.items()):
            theirs = outer.cluster(primary)
            theirs.bind(ours.bound)
            for serial, pointer in tuple(ours.seen.items()):
                theirs.see(serial, pointer)
            theirs.saw_unknown = theirs.saw_unknown or ours.saw_unknown
            if ours.must_save:
                theirs.note_write()
            if ours.changed_session:
                theirs.note_session_change()
            theirs.may_be_committed = theirs.may_be_committed or ours.may_be_committed
            theirs.outcome_unknown = theirs.outcome_unknown or ours.outcome_unknown

    def decisions(self) -> tuple[DecisionCount, ...]:
        """Return which alias answered how many statements, and why, in order of first use."""
        return tuple(
            DecisionCount(alias, reason, count)
            for cluster in tuple(self.clusters.values())
            for (alias, reason), count in tuple(cluster.decisions.items())
        )
