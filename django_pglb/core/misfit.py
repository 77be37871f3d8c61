"""Whether a replica belongs to its primary, and when one that did not belongs to it again.

1. A replica may be ahead of a primary's sample that was taken before its own answer: that proves nothing. Ahead of a later one,
   it has WAL that the primary never wrote, and it still has it when the primary has written as much.
2. Nothing but a new start ends that, and not every one does: a standby first replays its own files, and is behind itself meanwhile.
   It asks for more only at their end. So one that receives short of where it had been has lost what it should not have had,
   and one that is beyond all that it had received goes on with what the primary sent.
3. A server of the right cluster may be asked in another of its databases: a replica's has the OID that the primary's has.
4. That two servers take writes is proved only if the primary answered after the other one had said so, unless they are one and the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .topology import HostState

if TYPE_CHECKING:
    from .history import HostHistory
    from .probe import Probe


class Misfit(NamedTuple):
    """Why a replica does not belong to the primary, or cannot be seen to. Only a proved one outlives the primary's silence."""

    state: HostState
    why: str
    is_proved: bool = False


class Ahead(NamedTuple):
    """What a replica has shown that was found ahead of its primary."""

    lsn: int
    """Where it has been."""
    received_lsn: int
    """The end of what it may have in its files."""
    timeline: int | None
    server_started_seconds: float | None


def ahead_of(leader: Probe, host: HostHistory) -> Ahead | None:
    """Return what the replica has shown that was ahead of its primary, until it has shown that it follows again."""
    probe, before = host.probe, host.ahead
    if probe is None or probe.lsn is None:
        return before
    if _is_ahead(leader, probe):
        return _shown_by(probe)
    if host.earlier is not None and _is_ahead(leader, host.earlier):
        before = _shown_by(host.earlier)
    if before is None or _follows_again(leader, probe, before):
        return None
    if _was_restarted(probe, before):
        return before
    return before._replace(lsn=max(before.lsn, probe.lsn), received_lsn=max(before.received_lsn, probe.lsn, probe.received_lsn or 0))


def _is_ahead(leader: Probe, probe: Probe) -> bool:
    comparable = probe.in_recovery and probe.lsn is not None and leader.lsn is not None and probe.at <= leader.started_at
    return comparable and (probe.lsn or 0) > (leader.lsn or 0)


def _shown_by(probe: Probe) -> Ahead:
    lsn = probe.lsn or 0
    return Ahead(lsn, max(lsn, probe.received_lsn or 0), probe.timeline, probe.server_started_seconds)


def _was_restarted(probe: Probe, ahead: Ahead) -> bool:
    return _differ(probe.server_started_seconds, ahead.server_started_seconds)


def _follows_again(leader: Probe, probe: Probe, ahead: Ahead) -> bool:
    # A primary does not stream to a standby that is ahead of it.
    if probe.is_timeline_certain and probe.has_receiver and probe.timeline == leader.timeline:
        return True
    if not _was_restarted(probe, ahead) or probe.lsn is None:
        return False
    if probe.timeline is not None and probe.timeline == leader.timeline and _differ(ahead.timeline, leader.timeline):
        return True  # made anew, or rewound, from somebody on the primary's timeline
    return probe.has_receiver and (probe.lsn < ahead.lsn or probe.lsn > ahead.received_lsn)


def misfit_of(leader: Probe, host: HostHistory, *, strictly: bool, had_other_timeline: bool) -> Misfit | None:
    """Return why the replica is none of `leader`'s, or None.

    Unless `strictly`, the primary is gone: a replica may then have been promoted, or follow one that was.
    """
    probe = host.probe
    if probe is None:
        return None
    if _differ(probe.system_identifier, leader.system_identifier):
        why = f"belongs to another cluster: system identifier {probe.system_identifier}, the primary's is {leader.system_identifier}"
        return Misfit(HostState.DIVERGED, why, is_proved=True)
    if _differ(probe.database_oid, leader.database_oid):
        why = (
            f"reads another database: {probe.database!r} (OID {probe.database_oid}),"
            f" the primary's is {leader.database!r} (OID {leader.database_oid})"
        )
        return Misfit(HostState.DIVERGED, why, is_proved=True)
    if not probe.in_recovery:
        return _misfit_of_promoted(leader, host, probe, strictly=strictly)
    if host.ahead is not None and strictly:
        return Misfit(HostState.DIVERGED, "is ahead of the primary: it has WAL that the primary never wrote", is_proved=True)
    misfit = _misfit_of_timeline(leader, probe, had_other_timeline=had_other_timeline)
    if misfit is None or (not strictly and (probe.timeline or 0) > (leader.timeline or 0)):
        return None
    return misfit._replace(is_proved=probe.at <= leader.started_at and misfit.state is HostState.DIVERGED)


def misfit_by_name(database: str | None, host: HostHistory) -> Misfit | None:
    """Return why the replica is not used while its primary, which is configured to use `database`, has never been seen, or None.

    A pooler may call one database by two names, so this proves nothing; the primary's answer will.
    """
    probe = host.probe
    if probe is None or probe.database is None or database is None or probe.database == database:
        return None
    why = f"reads the database {probe.database!r}, and the primary has not told yet whether it is the {database!r} of its own settings"
    return Misfit(HostState.UNKNOWN, why)


def _misfit_of_promoted(leader: Probe, host: HostHistory, probe: Probe, *, strictly: bool) -> Misfit | None:
    if _are_one_server(leader, probe):
        # As a primary's alias that points at a standby: a server in the wrong role, with which nothing is wrong.
        return Misfit(HostState.OFFLINE, "is the primary itself, and no replica of it", is_proved=True)
    if not strictly:
        return None
    probes = [each for each in (probe, host.earlier) if each is not None and not each.in_recovery]
    if any(each.at <= leader.started_at for each in probes):
        return Misfit(HostState.DIVERGED, "takes writes of its own while the primary answers", is_proved=True)
    return Misfit(HostState.UNKNOWN, "takes writes of its own; whether the primary still does is not known yet")


def _are_one_server(leader: Probe, probe: Probe) -> bool:
    """Say whether two aliases point at the same server, which takes writes: after a failover, one may have followed the other."""
    started_at = probe.server_started_seconds
    return started_at is not None and (started_at, probe.timeline) == (leader.server_started_seconds, leader.timeline)


def _misfit_of_timeline(leader: Probe, probe: Probe, *, had_other_timeline: bool) -> Misfit | None:
    if leader.timeline is None or probe.timeline == leader.timeline:
        return None
    if probe.timeline is None:
        why = f"its timeline cannot be seen, and the primary has changed to {leader.timeline}; grant pg_read_all_stats to the probing role"
        return Misfit(HostState.UNKNOWN, why) if had_other_timeline else None
    why = f"is on timeline {probe.timeline}, the primary on {leader.timeline}"
    if probe.is_timeline_certain or probe.timeline > leader.timeline:
        return Misfit(HostState.DIVERGED, why)
    return Misfit(HostState.UNKNOWN, f"{why}, by its control data, which may be minutes old; grant pg_read_all_stats to the probing role")


def is_other_history(one: Probe, other: Probe) -> bool:
    """Say whether positions of the two cannot be compared. What one of them may not tell, or cannot, is no difference."""
    return _differ(one.system_identifier, other.system_identifier) or _differ(one.timeline, other.timeline)


def _differ(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one != other
