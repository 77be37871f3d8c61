"""What a unit of work must see, and what it leaves for those that come after it: loading pointers and saving them."""

from __future__ import annotations

import time
from contextvars import ContextVar
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error as DatabaseError

from .context import current_scope, reading_by_pointer
from .core.asker import NO_REQUEST
from .core.lsn import renewed
from .core.policy import is_void
from .core.routing_session import UNBOUND, Bound
from .engine import connection_to
from .errors import PrimaryProtected
from .health.clock import now
from .runtime import get_runtime
from .stores import StoreError, is_trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .core.routing_session import ClusterSession, Identity, IdentitySource, RoutingSession
    from .runtime import Runtime

# What is being loaded here. Not a flag of the unit of work: its other threads must not read unbound meanwhile.
_loading: ContextVar[frozenset[ClusterSession]] = ContextVar("django_pglb_loading", default=frozenset())


class Saved(NamedTuple):
    """What a unit of work bound its identities by in one cluster (wall time), and whether the store has acknowledged it."""

    primary: str
    bound: Bound
    acknowledged: bool
    is_for_client: bool
    """Whether the client should carry it, too. Not what was only seen: a slow page would take back what a quicker one has brought."""
    is_kept: bool
    """Whether the store keeps it for somebody, so that it binds also if the client does not carry it."""


def note_write(primary: str, *, outcome_unknown: bool = False, may_be_committed: bool = False) -> None:
    """Note that this unit of work writes to the cluster of `primary`. Not before there is a connection to write on."""
    scope = current_scope()
    if scope.routing is None or scope.ignore_writes:
        return
    for unit in (scope.routing, *scope.routing.around()):
        unit.identities.asker()  # who is on the request now need not be there any more when that is saved
    if may_be_committed or outcome_unknown:
        scope.routing.note_may_be_committed(primary)
    cluster = scope.routing.cluster(primary)
    if outcome_unknown:
        cluster.note_unknown_outcome()
    else:
        cluster.note_write()


def note_refused(primary: str) -> None:
    """Note that `primary` could not be connected to: nothing of what was to run there was sent."""
    scope = current_scope()
    if scope.routing is not None:
        scope.routing.note_refused(primary)


def note_end_of_write(primary: str) -> None:
    """Note that a statement of this unit of work that wrote has returned.

    A save that another thread began meanwhile does not cover it, and where the unit has ended nobody else will save it.
    """
    scope = current_scope()
    if scope.routing is None or scope.ignore_writes:
        return
    connection = connection_to(primary)
    if connection.pglb_transaction_is_open:
        connection.pglb_writers |= {scope.routing}
    else:
        note_commit(scope.routing, primary)


def note_commit(routing: RoutingSession, primary: str) -> None:
    """Note that what `routing` wrote was committed, now. If it has ended, or is being streamed and this is no step of it, it is saved."""
    routing.note_may_be_committed(primary)
    routing.cluster(primary).note_write()
    if routing.has_ended or (routing.streams and not current_scope().in_step):
        save_late(routing)


def cluster_of(runtime: Runtime, routing: RoutingSession, primary: str) -> ClusterSession:
    """Return the dealings of `routing` with the cluster of `primary`, for a statement that is to be placed.

    A unit of work that is older than `CHECK_INTERVAL`, as server-sent events and long polls are, must ask again what binds it: its user
    may have written elsewhere meanwhile. Not between the hosts of one statement, or one that fails slowly would go on for ever.
    """
    cluster, moment = routing.cluster(primary), now()
    if moment >= cluster.look_again_at:
        if routing.outer is not None:
            cluster_of(runtime, routing.outer, primary)
        routing.look_again(primary, moment + runtime.config.clusters[primary].check_interval)
    return cluster


def load_bound(runtime: Runtime, routing: RoutingSession, cluster: ClusterSession) -> None:
    """Find out what binds this unit of work in `cluster`: at its first routed read. Costs nothing when it is known.

    At most two store round trips: for what is known beforehand, and for what the user's session reveals. Loading the session reads
    the database; that read is routed too, and bound by what is known by then.
    """
    if cluster.loaded and not cluster.asker.has_changed():
        return
    if cluster in _loading.get():
        # The session is being loaded, by a read which the unit around this one has bound by now.
        if routing.outer is not None:
            _load_outer(runtime, routing.outer, cluster)
        return
    if not runtime.needs_pointers(cluster.primary):
        cluster.loaded = True
        return
    # From now on, whoever asks first: somebody who publishes a job, say, before the first read.
    cluster.look_again_at = cluster.look_again_at or now() + runtime.config.clusters[cluster.primary].check_interval
    token = _loading.set(_loading.get() | {cluster})
    try:
        is_outer_loaded = routing.outer is None or _load_outer(runtime, routing.outer, cluster)
        identities = routing.identities
        # The request is that of the outermost unit. Who is put on it while this is asked is noticed by the next read.
        asker = identities.asker() if routing.outer is None else routing.outer.cluster(cluster.primary).asker
        carried = identities.carried(cluster.primary)
        if carried is not UNBOUND:
            cluster.bind(carried.shifted(now() - time.time()))
        known = frozenset(identities.known())
        if known:
            _ask(runtime, cluster, known)
        more = _revealed(runtime, cluster, identities) - known
        if more:
            runtime.note_session(None)
            _ask(runtime, cluster, more)
        cluster.asker, cluster.loaded = asker, is_outer_loaded and identities.is_settled()
    finally:
        _loading.reset(token)


def _load_outer(runtime: Runtime, around: RoutingSession, cluster: ClusterSession) -> bool:
    """Bind this unit of work by what binds the one around it. Says whether that is all that can be known of that one."""
    outer = around.cluster(cluster.primary)
    load_bound(runtime, around, outer)
    cluster.bind(outer.bound.merged(Bound(outer.seen_at_most)))
    # A unit that acts for nobody of its own would not notice.
    cluster.store_down = cluster.store_down or outer.store_down
    return outer.loaded


def _revealed(runtime: Runtime, cluster: ClusterSession, identities: IdentitySource) -> frozenset[Identity]:
    """Return whom the session reveals. It may live anywhere, as in another cluster, whose trouble must fail no read of this one.

    Where it cannot be loaded nobody can tell what its user wrote elsewhere, as when the store is down.
    """
    try:
        return frozenset(identities.revealed())
    except PrimaryProtected:
        raise  # whoever asks on would ask the primary
    except Exception as error:
        if not is_trouble(error):
            raise
        cluster.store_down = True
        runtime.note_session(error)
        return frozenset()


def _ask(runtime: Runtime, cluster: ClusterSession, identities: Iterable[Identity]) -> None:
    """Merge what the store knows of those `identities` that it was not asked about before."""
    new = frozenset(identities).difference(cluster.asked)
    if not new or cluster.store_down:
        return
    try:
        bounds = runtime.load(cluster.primary, new)
        for bound in bounds:
            cluster.bind(bound)
        cluster.note_remembered(bound.pointer for bound in bounds)
    except StoreError:
        cluster.store_down = True
    else:
        # Not earlier: another thread of this unit takes what was asked for known.
        cluster.asked |= new


def is_nobody_new(routing: RoutingSession, cluster: ClusterSession) -> bool:
    """Say whether whoever has been put on the request, or found to be there, was asked about already: all stays as it is then."""
    asker = routing.identities.asker()
    if asker is NO_REQUEST or (asker.identity is not None and asker.identity not in cluster.asked):
        return False
    cluster.asker = asker
    return True


def bind(routing: RoutingSession, identity: Identity) -> None:
    """Bind `routing` by one more identity: what it wrote, wherever that was, is seen from the next read on.

    That read asks the store, also of a unit of work inside `routing` that is in force here. Not this, as an event loop may be calling.
    """
    routing.identities.add(*identity)
    innermost = current_scope().routing
    inner = () if innermost is None else takewhile(lambda unit: unit is not routing, (innermost, *innermost.around()))
    for unit in (routing, *inner):
        for cluster in tuple(unit.clusters.values()):
            cluster.ask_again()


def must_save(routing: RoutingSession) -> bool:
    """Say whether there is anything to save."""
    runtime = get_runtime()
    for primary, cluster in tuple(routing.clusters.items()):
        if (cluster.must_save or cluster.must_remember) and primary in runtime.config.clusters and runtime.needs_pointers(primary):
            return True
    return False


def may_have_written(routing: RoutingSession) -> bool:
    """Say whether `routing` may have to be taken to have written where no write was seen. Asks nobody."""
    return routing.is_taken_to_have_written and (routing.view_ran or bool(_used_outside(get_runtime(), routing)))


def save_bounds(routing: RoutingSession) -> list[Saved]:
    """End `routing`: save what it committed, or may have, under all its identities, and where reads must be monotonic also what it saw.

    Call it after the last commit has returned.
    Nothing is saved for a cluster without replicas. What tasks of this unit of work write from now on is saved by themselves.
    """
    routing.end()
    return save_now(routing)


def save_now(routing: RoutingSession, *, also_unseen: bool = False) -> list[Saved]:
    """Do what `save_bounds` does for a unit of work that goes on. `also_unseen`: save also where it may have written without being seen."""
    runtime = get_runtime()
    # What the test case that is running forbids was neither written nor read.
    primaries = [
        primary for primary in runtime.config.clusters if runtime.needs_pointers(primary) and not connection_to(primary).pglb_is_forbidden
    ]
    saved: list[Saved] = []
    left, unseen = list(primaries), frozenset[str]()
    try:
        # Before anything is looked up in order to save, which would count as a use.
        unseen = frozenset(primary for primary in primaries if also_unseen and _may_have_written_unseen(runtime, routing, primary))
        while left:
            saved.extend(_save_in(runtime, routing, left[0], is_unseen=left[0] in unseen))
            del left[0]
    except BaseException:
        # Whoever interrupts, as a task's time limit does, ends this unit of work. What it has committed binds those who are known.
        for primary in left:
            if primary in unseen or routing.cluster(primary).must_save:
                runtime.save(primary, tuple(routing.identities.known()), pinned(runtime, primary))
        raise
    return saved


def _save_in(runtime: Runtime, routing: RoutingSession, primary: str, *, is_unseen: bool) -> Iterator[Saved]:
    cluster = routing.clusters.get(primary)
    if is_unseen or (cluster is not None and cluster.must_save):
        yield from _save_written(runtime, routing, routing.cluster(primary), is_unseen=is_unseen)
    elif cluster is not None and cluster.must_remember:
        yield from _save_seen(runtime, routing, cluster)


def _may_have_written_unseen(runtime: Runtime, routing: RoutingSession, primary: str) -> bool:
    """Say whether the request of `routing` is taken to have written to the cluster of `primary`, though nobody saw it.

    Its method says so if its view was called, and used the cluster or acts for somebody: an outsider cannot make this site do anything
    by the method alone, nor by a token that the view has looked up and refused. What a thread of this process did meanwhile, outside any
    request, may have been started by it in any case.
    """
    if not routing.is_taken_to_have_written or routing.is_safe_in(primary):
        return False
    if primary in routing.down_at_start and runtime.is_known_to_be_down(primary):
        return False  # nobody can have written
    if primary in _used_outside(runtime, routing):
        return True
    if not routing.view_ran or routing.was_only_refused(primary):
        return False
    if routing.has_used(primary) and not routing.was_refused:
        return True
    # To ask clusters that it did not use as well would make each request wait for every primary of the project.
    is_concerned = len(runtime.config.clusters) == 1 or routing.has_used(primary)
    return is_concerned and _acts_for_somebody(runtime, routing)


def _used_outside(runtime: Runtime, routing: RoutingSession) -> frozenset[str]:
    """Return the primaries that a thread of this process has used since `routing` began, outside any request."""
    at_start = routing.outside_at_start
    return frozenset(primary for primary, use in runtime.uses_outside().items() if use != at_start.get(primary, 0))


def _acts_for_somebody(runtime: Runtime, routing: RoutingSession) -> bool:
    """Say whether `routing` acts for somebody who is known. Where that cannot be asked, it may."""
    if _is_among_rows(runtime):
        return bool(tuple(routing.identities.known()))
    try:
        with reading_by_pointer():
            return routing.identities.acts_for_somebody()
    except Exception as error:
        if not is_trouble(error):
            raise
        runtime.note_session(error)
        return True


def _is_among_rows(runtime: Runtime) -> bool:
    """Say whether rows are being streamed here: to load a session would wait for them to end."""
    return any(connection_to(primary).pglb_is_busy for primary in runtime.config.clusters)


def _save_written(runtime: Runtime, routing: RoutingSession, cluster: ClusterSession, *, is_unseen: bool) -> Iterator[Saved]:
    """Save what `routing` wrote. `is_unseen`: it is taken to have written, whatever was seen of it."""
    was_seen, covered, must_pin, cluster.outcome_unknown = cluster.must_save, cluster.written, cluster.outcome_unknown, False
    connection = connection_to(cluster.primary)
    is_open = connection.in_atomic_block or connection.pglb_is_busy
    may_be_committed = must_pin or cluster.may_be_committed or is_unseen or is_open or connection.pglb_transaction_is_open
    if not (was_seen or is_open) and runtime.is_known_to_be_down(cluster.primary):
        bound = pinned(runtime, cluster.primary)  # to ask would only take time
    else:
        bound = capture_bound(runtime, cluster, must_pin=must_pin)
    if bound.pointer is None and not may_be_committed:
        # Nobody can miss anything. To keep the user's next pages from the replicas would help nobody.
        cluster.saved = covered
        yield from _save_seen(runtime, routing, cluster)
        return
    identities = _identities_to_bind(routing, wrote=was_seen, may_ask=bound.pointer is not None or is_open)
    yield _save(runtime, cluster, identities, bound)
    # Not before this unit itself is bound, and not what another thread has written meanwhile.
    cluster.saved = covered
    if is_open:
        # A block around this unit of work, or rows that it is among: it has no position yet. The pin holds until then, and no longer.
        connection.pglb_writers |= {routing}


def _save_seen(runtime: Runtime, routing: RoutingSession, cluster: ClusterSession) -> Iterator[Saved]:
    """Save what a unit of work that wrote nothing must not see undone."""
    identities = _identities_to_bind(routing, wrote=False)
    if not (identities or cluster.must_renew):
        return
    saw_unknown, must_renew, cluster.saw_unknown, cluster.must_renew = cluster.saw_unknown, cluster.must_renew, False, False
    # A position of now covers whatever was seen; on a new timeline or system, also whatever of an older one has survived.
    bound = capture_bound(runtime, cluster) if saw_unknown or must_renew else UNBOUND
    if bound.pointer is None and not saw_unknown:
        bound = UNBOUND
    if bound != UNBOUND or cluster.seen_at_most is not None:
        yield _save(runtime, cluster, identities, bound, is_for_client=must_renew)


def _save(
    runtime: Runtime, cluster: ClusterSession, identities: tuple[Identity, ...], bound: Bound, *, is_for_client: bool = True
) -> Saved:
    """Save `bound`, and what was seen, which no failure to take a position may lose."""
    bound = bound.merged(Bound(cluster.seen_at_most).shifted(time.time() - now()))
    cluster.renew(bound.shifted(now() - time.time()))
    cluster.remembered = renewed(cluster.remembered, bound.pointer)
    acknowledged = runtime.save(cluster.primary, identities, bound)
    return Saved(cluster.primary, bound, acknowledged, is_for_client, bool(identities) and runtime.keeps(cluster.primary))


def _identities_to_bind(routing: RoutingSession, *, wrote: bool, may_ask: bool = True) -> tuple[Identity, ...]:
    """Return whom to bind. What was committed must be saved for those who are known, also where the session cannot be loaded.

    `may_ask`: the primary answers, which may have to say whose session it is.
    """
    runtime = get_runtime()
    if not may_ask or _is_among_rows(runtime):
        # Whoever writes among rows is saved once more when they end.
        return tuple(routing.identities.known())
    try:
        with reading_by_pointer():
            bound = tuple(routing.identities.to_bind())
            ended = () if wrote else tuple(routing.identities.ended())
            return tuple(identity for identity in bound if identity not in ended)
    except Exception as error:
        if not is_trouble(error):
            raise
        runtime.note_session(error)
        return tuple(routing.identities.known())


def end_after_headers(routing: RoutingSession) -> None:
    """End a unit of work whose client has its headers already."""
    routing.end()
    _save_after_headers(routing, also_unseen=may_have_written(routing))


def save_after_headers(routing: RoutingSession) -> None:
    """Save what `routing` and the units of work around it have written since the client got its headers, and go on."""
    for unit in (routing, *routing.around()):
        _save_after_headers(unit)


def save_late(routing: RoutingSession) -> None:
    """Save what was committed after the end of `routing`, or beside its stream, also for the units of work around it that are like that."""
    for unit in takewhile(lambda unit: unit.is_saved_late, (routing, *routing.around())):
        _save_after_headers(unit)


def _save_after_headers(routing: RoutingSession, *, also_unseen: bool = False) -> None:
    if routing.outer is not None:
        # It would learn of it when this one ends, and then take it for saved.
        routing.tell(routing.outer)
    was_seen = must_save(routing)
    if not (was_seen or also_unseen):
        return
    # Who acts for nobody has nobody to bind; a unit inside a request has told that one.
    must_bind = was_seen and routing.is_request and routing.outer is None
    for saved in save_now(routing, also_unseen=also_unseen):
        if must_bind and saved.is_for_client and not saved.is_kept:
            get_runtime().note_unkept(saved.primary)


def bounds_to_export(routing: RoutingSession) -> dict[str, Bound]:
    """Return what binds whoever continues this unit of work elsewhere (wall time), per cluster."""
    runtime = get_runtime()
    return {primary: bound_to_export(runtime, routing, primary) for primary in runtime.config.clusters if runtime.needs_pointers(primary)}


def bound_to_export(runtime: Runtime, routing: RoutingSession, primary: str) -> Bound:
    """Return what binds whoever continues this unit of work elsewhere (wall time) in the cluster of `primary`.

    Asks the primary if this unit used it since it was last asked: who read there may have seen what no replica has, and tells of it.
    """
    cluster = routing.cluster(primary)
    load_bound(runtime, routing, cluster)
    bound = cluster.bound.merged(Bound(cluster.seen_at_most)).shifted(time.time() - now())
    if _knows_more(runtime, routing, primary) or _is_about_to_write(runtime, routing, primary):
        bound = bound.renewed(capture_bound_once(runtime, cluster))
    return bound


def _is_about_to_write(runtime: Runtime, routing: RoutingSession, primary: str) -> bool:
    """Say whether the method of the request of `routing` means that its view, which is still running, may have written here unseen."""
    if not routing.is_taken_to_have_written or routing.is_safe_in(primary):
        return False
    return len(runtime.config.clusters) == 1 or routing.has_used(primary) or primary in _used_outside(runtime, routing)


def _knows_more(runtime: Runtime, routing: RoutingSession, primary: str) -> bool:
    """Say whether `routing`, or a unit of work around it, may know of more than binds it, or be bound by more than could be asked."""
    if routing.cluster(primary).store_down and runtime.config.clusters[primary].on_store_error == "primary":
        return True
    clusters = [unit.cluster(primary) for unit in (routing, *routing.around())]
    return any(cluster.wrote or cluster.was_answered_by_primary or cluster.saw_unknown for cluster in clusters)


def capture_bound_once(runtime: Runtime, cluster: ClusterSession) -> Bound:
    """Return what `capture_bound` does; costs nothing if no statement and no commit has ended on the primary since this process did it."""
    primary, use = cluster.primary, runtime.last_use(cluster.primary)
    pointer = None if cluster.outcome_unknown else runtime.position_since(primary, use)
    # After a failover, or when the cluster was made anew, no replica could prove it any more.
    if pointer is not None and not is_void(pointer, runtime.topology(primary)):
        return Bound(pointer)
    connection, routing = connection_to(primary), current_scope().routing
    is_ours = connection.pglb_is_lost and not connection.pglb_carries_state and (routing is None or not routing.is_request)
    bound = capture_bound(runtime, cluster)
    if is_ours:
        connection.close()  # nobody else does in a thread that has not used the database, and a pool would lose a place
    if bound.pointer is not None:
        runtime.remember_position(primary, use, bound.pointer)
    return bound


def capture_bound(runtime: Runtime, cluster: ClusterSession, *, must_pin: bool = False) -> Bound:
    """Return what now binds whoever wrote (wall time): the primary's position after the commit, and a pin where nothing can be proved."""
    pointer = None
    try:
        pointer = connection_to(cluster.primary).pglb_capture_pointer(runtime.config.clusters[cluster.primary].check_timeout)
    except (DatabaseError, SynchronousOnlyOperation) as error:
        # The latter where a generator that has written is closed in an event loop.
        runtime.note_position(cluster.primary, error)
    else:
        runtime.note_position(cluster.primary, None)
    if pointer is not None and not (must_pin or cluster.outcome_unknown):
        return Bound(pointer)
    return pinned(runtime, cluster.primary)._replace(pointer=pointer)


def pinned(runtime: Runtime, primary: str) -> Bound:
    """Return what keeps a reader on `primary` where nothing can be proved (wall time)."""
    return Bound(pinned_until=time.time() + runtime.config.clusters[primary].sticky_seconds)
