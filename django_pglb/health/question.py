"""What a probe asks, in one statement, and how the answer is read.

Works on PostgreSQL 14 and later, on primaries and standbys, for a role without any grants. `pg_read_all_stats` shows more.
"""

from __future__ import annotations

from typing import LiteralString, NamedTuple

from ..core.lsn import normalise, parse_lsn
from ..core.probe import Probe

# Whether it is a standby is asked once: between two calls it may be promoted.
# The insert position, not the written one, as for pointers. The primary's timeline comes from its file name, because its control data
# shows a new one only after the next checkpoint. A standby's own comes from the receiver, or else from control data.
# The database's OID comes from this session's own activity: `pg_database` may be closed to a role.
_COLUMNS: LiteralString = """
SELECT
  s.standby,
  CASE WHEN s.standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text,
  pg_last_wal_receive_lsn()::text,
  CASE WHEN NOT s.standby THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
  r.pid IS NOT NULL,
  r.status,
  r.received_tli,
  current_setting('server_version_num')::int,
  current_setting('hot_standby_feedback')::bool,
  CASE WHEN s.standby THEN pg_is_wal_replay_paused() ELSE false END,
  s.standby AND current_setting('recovery_min_apply_delay') <> '0',
  extract(epoch FROM pg_postmaster_start_time())::float8,
  extract(epoch FROM clock_timestamp())::float8,
  extract(epoch FROM pg_last_xact_replay_timestamp())::float8,
  current_setting('wal_block_size')::int,
  pg_size_bytes(current_setting('wal_segment_size')),
  (SELECT datid FROM pg_stat_get_activity(pg_backend_pid()))::int8,
  current_database()::text,
  current_setting('synchronous_standby_names') <> '',
"""
_FROM: LiteralString = """
FROM (SELECT pg_is_in_recovery() AS standby OFFSET 0) s LEFT JOIN pg_stat_wal_receiver r ON true
"""

FULL: LiteralString = (
    _COLUMNS  # noqa: S608 - constants, all of them
    + """
  (SELECT system_identifier FROM pg_control_system()),
  greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
"""
    + _FROM
)

# For roles, or managed services, that may not read control data.
PLAIN: LiteralString = _COLUMNS + " NULL::bigint, NULL::int" + _FROM


class Row(NamedTuple):
    """The columns of the statements above."""

    standby: bool
    position: str | None
    received: str | None
    own_timeline: str | None
    has_receiver: bool
    receiver_status: str | None
    receiver_timeline: int | None
    server_version: int
    hot_standby_feedback: bool
    is_replay_paused: bool
    is_replay_delayed: bool
    server_started_seconds: float
    server_seconds: float
    last_commit_seconds: float | None
    block_bytes: int
    segment_bytes: int
    database_oid: int | None
    database: str
    waits_for_standbys: bool
    system_identifier: int | None
    control_timeline: int | None


def read(row: Row, *, started_at: float, at: float, latency_seconds: float | None = None) -> Probe:
    """Return what the host said."""
    timeline, is_certain = _timeline(row)
    return Probe(
        started_at=started_at,
        at=at,
        latency_seconds=latency_seconds,
        in_recovery=row.standby,
        lsn=_position(row),
        received_lsn=None if row.received is None else parse_lsn(row.received),
        timeline=timeline,
        is_timeline_certain=is_certain,
        has_receiver=row.has_receiver,
        sees_receiver=row.receiver_status is not None,
        system_identifier=row.system_identifier,
        database_oid=row.database_oid,
        database=row.database,
        waits_for_standbys=row.waits_for_standbys,
        server_version=row.server_version,
        hot_standby_feedback=row.hot_standby_feedback,
        is_replay_paused=row.is_replay_paused,
        is_replay_delayed=row.is_replay_delayed,
        server_started_seconds=row.server_started_seconds,
        server_seconds=row.server_seconds,
        last_commit_seconds=row.last_commit_seconds,
    )


def _position(row: Row) -> int | None:
    if row.position is None:
        return None
    lsn = parse_lsn(row.position)
    return lsn if row.standby else normalise(lsn, block_bytes=row.block_bytes, segment_bytes=row.segment_bytes)


def _timeline(row: Row) -> tuple[int | None, bool]:
    """Return the timeline and whether it is the one of this moment."""
    if row.own_timeline is not None:
        return int(row.own_timeline, 16), True
    if row.receiver_status == "streaming" and row.receiver_timeline is not None:
        return row.receiver_timeline, True
    return row.control_timeline, False
