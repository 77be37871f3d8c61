"""What a topology says, from what probes have told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_pglb.core.assessment import assess
from django_pglb.core.history import MAX_SAMPLES, ClusterHistory, horizon_seconds, looked_at, record_primary, record_replica, with_sample
from django_pglb.core.probe import Failure, NotNow, Outcome, Probe
from django_pglb.core.topology import Host, HostState, Sample, Topology

BLANK = Topology(primary=Host(alias="default", is_primary=True), replicas=(Host(alias="r1"), Host(alias="r2", weight=3, pooled=True)))
RTT = 0.01


def primary(at: float, lsn: int, **changes: Any) -> Probe:
    known: dict[str, Any] = {"timeline": 1, "is_timeline_certain": True, "system_identifier": 7, "server_version": 180006}
    return Probe(started_at=at - RTT, at=at, in_recovery=False, lsn=lsn, **{**known, **changes})


def standby(at: float, lsn: int | None, **changes: Any) -> Probe:
    known: dict[str, Any] = {"timeline": 1, "system_identifier": 7, "received_lsn": lsn, "has_receiver": True}
    return Probe(started_at=at - RTT, at=at, **{"in_recovery": True, "lsn": lsn, **known, **changes})


def told(*outcomes: tuple[str, Outcome], max_lag: float | None = 20) -> Topology:
    """Return the topology after `outcomes`, each with the alias it came from, in order."""
    return assess(BLANK, remembered(*outcomes), max_lag)


def remembered(*outcomes: tuple[str, Outcome]) -> ClusterHistory:
    history = ClusterHistory()
    for alias, outcome in outcomes:
        history = recorded(history, alias, outcome)
    return history


def recorded(history: ClusterHistory, alias: str, outcome: Outcome) -> ClusterHistory:
    return record_primary(history, outcome, 60) if alias == "default" else record_replica(history, alias, outcome)


def r1(topology: Topology) -> Host:
    return topology.by_alias["r1"]


P1 = ("default", primary(100, 1000))


def test_nothing_is_known_before_the_first_probe() -> None:
    """Every host is unknown, and none is online."""
    topology = told()
    assert {host.state for host in topology.by_alias.values()} == {HostState.UNKNOWN}
    assert topology.online == ()


def test_hosts_keep_what_was_configured() -> None:
    """Weight and pooling survive the assessment."""
    host = told(P1, ("r2", standby(100, 1000))).by_alias["r2"]
    assert (host.weight, host.pooled, host.state) == (3, True, HostState.ONLINE)


def test_replica_that_replayed_a_sample_is_online() -> None:
    """It is online, caught up, and shows what it told."""
    host = r1(told(P1, ("r1", standby(100.1, 1000, server_version=150018))))
    assert (host.state, host.lag_seconds, host.lag_bytes, host.delay_seconds, host.is_promoted) == (HostState.ONLINE, 0, 0, 0, False)
    assert (host.replay_lsn, host.sampled_at, host.timeline, host.server_version) == (1000, 100.1, 1, 150018)


def test_replica_waits_until_the_primary_was_sampled() -> None:
    """It is unknown while the primary has not been looked at."""
    assert r1(told(("r1", standby(100, 1000)))).state is HostState.UNKNOWN


def test_replica_is_unknown_until_it_replayed_a_position_sampled_here() -> None:
    """A replica short of every sample is not used, however little its lag; having reached one, it is."""
    short = [P1, ("r1", standby(100.1, 990))]
    assert r1(told(*short)).state is HostState.UNKNOWN
    assert r1(told(*short, ("default", primary(101, 5000)), ("r1", standby(101.1, 1000)))).state is HostState.ONLINE


def test_replica_that_stays_further_behind_than_is_remembered_comes_online() -> None:
    """Without a threshold: it replays positions that were sampled here, long after they have been forgotten."""
    outcomes: list[Any] = []
    for second in range(700):
        outcomes += [("default", primary(100 + second, 1000 + second)), ("r1", standby(100.1 + second, 700 + second))]
    assert r1(told(*outcomes[:500], max_lag=None)).state is HostState.UNKNOWN
    assert r1(told(*outcomes, max_lag=None)).state is HostState.ONLINE


def test_replica_that_went_back_is_unknown_until_it_has_caught_up_again() -> None:
    """Restarted after a crash, or swapped, between two looks that both succeeded."""
    outcomes = [P1, ("r1", standby(100.1, 1000)), ("r1", standby(101.1, 400))]
    assert r1(told(*outcomes)).state is HostState.UNKNOWN
    assert r1(told(*outcomes, ("r1", standby(102.1, 1000)))).state is HostState.ONLINE


def test_lag_is_the_age_of_the_oldest_sample_not_replayed() -> None:
    """Positions sampled at 101 and 102 are missing at 103.5: the lag is 2.5 s, in bytes it counts to the newest."""
    host = r1(told(P1, ("default", primary(101, 2000)), ("default", primary(102, 3000)), ("r1", standby(103.5, 1000))))
    assert (host.lag_seconds, host.lag_bytes) == (2.5, 2000)


def test_idle_primary_makes_no_lag() -> None:
    """However long ago the last position was new, a replica that has replayed it is not behind."""
    host = r1(told(P1, ("default", primary(900, 1000)), ("r1", standby(900.1, 1000))))
    assert (host.lag_seconds, host.delay_seconds) == (0, 0)


def test_first_write_after_a_quiet_night_makes_no_lag_of_hours() -> None:
    """The lag counts from the first sample of the new position, the delay from the last one of the old."""
    host = r1(told(P1, ("default", primary(900, 1000)), ("default", primary(901, 2000)), ("r1", standby(901.5, 1000))))
    assert (host.lag_seconds, host.delay_seconds) == (0.5, 1.5)


@pytest.mark.parametrize(("max_lag", "state"), [(20, HostState.LAGGING), (30, HostState.ONLINE), (None, HostState.ONLINE)])
def test_replica_lags_beyond_the_threshold(max_lag: float | None, state: HostState) -> None:
    """A lag of 25 s is too much for 20, not for 30, and never for None; the reason names both numbers."""
    outcomes = [P1, ("r1", standby(100.1, 1000)), ("default", primary(101, 2000)), ("r1", standby(126, 1000))]
    host = r1(told(*outcomes, max_lag=max_lag))
    assert (host.state, host.lag_seconds) == (state, 25)
    if state is HostState.LAGGING:
        assert host.why == "25.0 s behind, more than MAX_LAG_SECONDS (20)"


def lagging_by(lags: Sequence[float | Failure], max_lag: float | None = 20) -> list[HostState]:
    """Return the replica's states while it is so many seconds behind, second by second, or fails. The primary writes all the while."""
    history, topology, states = ClusterHistory(), BLANK, []
    for second in range(100):  # a past, long enough for the replica to be late in
        history = recorded(history, "default", primary(second, second * 1000))
    history = recorded(history, "r1", standby(99, 99_000))
    for second, lag in enumerate(lags, 100):
        history = recorded(history, "default", primary(second, second * 1000))
        answer = lag._replace(at=float(second)) if isinstance(lag, Failure) else standby(second + 0.001, round((second - lag) * 1000))
        history = recorded(history, "r1", answer)
        topology = assess(BLANK, history, max_lag, topology)
        states.append(r1(topology).state)
    return states


ONLINE, LAGGING, OFFLINE = HostState.ONLINE, HostState.LAGGING, HostState.OFFLINE


@pytest.mark.parametrize(
    ("lags", "max_lag", "expected"),
    [
        ([19.5, 20.5, 19.5, 15.5, 10.5, 9.5, 10.5, 19.5], 20, [ONLINE, *[LAGGING] * 4, *[ONLINE] * 3]),
        ([21.5, 0, 19.5, 21.5], 20, [LAGGING, ONLINE, ONLINE, LAGGING]),
        ([21.5, 19.5, 21.5, 19.5], None, [ONLINE] * 4),
        # Who fails meanwhile comes back no sooner.
        ([20.5, Failure(0, "down"), 19.5, 9.5], 20, [LAGGING, OFFLINE, LAGGING, ONLINE]),
        ([15, Failure(0, "down"), 15], 20, [ONLINE, OFFLINE, ONLINE]),
        # The limit is a few looks long: a replica that is always 2.1 s behind is told as 2 and as 1 s behind, as its looks fall.
        ([2.1, 1.9, 1.7, 2.1, 1.9], 2, [LAGGING] * 5),
        ([2.1, 0.5, 1.9], 2, [LAGGING, ONLINE, ONLINE]),
    ],
)
def test_replica_returns_when_it_is_clearly_below_the_limit(
    lags: list[float | Failure], max_lag: float | None, expected: list[HostState]
) -> None:
    """At half of it: one that hovers about the limit stays away."""
    assert lagging_by(lags, max_lag) == expected


@given(st.lists(st.floats(10.2, 40), min_size=1, max_size=60))
def test_replica_that_hovers_about_the_limit_leaves_once(lags: list[float]) -> None:
    """Whatever it does above half of the limit."""
    states = lagging_by(lags)
    left = states.index(LAGGING) if LAGGING in states else len(states)
    assert states == [ONLINE] * left + [LAGGING] * (len(states) - left)


def test_replica_below_the_limit_returns_when_its_primary_falls_silent() -> None:
    """There may be nobody else to ask: the limit itself decides then, and the reason tells what is waited for before."""
    history = remembered(P1, ("r1", standby(100.1, 1000)), ("default", primary(101, 2000)), ("r1", standby(126, 1000)))
    away = assess(BLANK, history, 20)
    history = recorded(recorded(history, "default", primary(126.5, 3000)), "r1", standby(127, 2000, received_lsn=3000))
    history = recorded(history, "r1", standby(142, 2000, received_lsn=3000))
    waiting = assess(BLANK, history, 20, away)
    assert (r1(waiting).state, r1(waiting).why) == (
        HostState.LAGGING,
        "15.5 s behind; was more than MAX_LAG_SECONDS (20), and returns below half of that",
    )
    alone = assess(BLANK, recorded(history, "default", Failure(143, "down")), 20, waiting)
    assert r1(alone).state is HostState.ONLINE
    assert r1(assess(BLANK, recorded(history, "default", primary(144, 3000)), 20, alone)).state is HostState.LAGGING


def test_replica_whose_upstream_is_cut_lags() -> None:
    """Having replayed all that it received is no proof of being up to date while the primary answers."""
    outcomes = [P1, ("r1", standby(100.1, 1000)), ("default", primary(101, 2000)), ("default", primary(130, 2000))]
    host = r1(told(*outcomes, ("r1", standby(130, 1000, received_lsn=1000, has_receiver=False))))
    assert (host.state, host.lag_seconds) == (HostState.LAGGING, 29)


def test_delay_is_interpolated_between_samples() -> None:
    """Half-way between the positions of 100 and 101, at 101.2, it is as far as the primary was at 100.5."""
    host = r1(told(P1, ("default", primary(101, 2000)), ("r1", standby(101.2, 1500))))
    assert host.delay_seconds == pytest.approx(0.7)


@pytest.mark.parametrize("at", [100.9999, 101.0001])
def test_delay_does_not_depend_on_who_answers_first(at: float) -> None:
    """Half a second behind is half a second behind, whether the primary's answer in the same round came just before or just after."""
    answers: list[tuple[str, Probe]] = [("default", primary(101, 2000)), ("r1", standby(at, 1500))]
    answers.sort(key=lambda answer: answer[1].at)
    assert r1(told(P1, *answers)).delay_seconds == pytest.approx(0.5, abs=0.001)


def test_delay_is_never_negative() -> None:
    """What was written in one burst seems to have been written later than it was."""
    assert r1(told(P1, ("r1", standby(100.5, 1900)), ("default", primary(101, 2000)))).delay_seconds == 0


@pytest.mark.parametrize("at", [99.9999, 100.1])
def test_delay_is_unknown_behind_every_sample(at: float) -> None:
    """Nothing says when the primary had a position older than all samples, also where the first of them came after the answer."""
    assert r1(told(P1, ("r1", standby(at, 10)))).delay_seconds is None


@pytest.mark.parametrize("at", [99.9999, 100.1])
def test_there_is_no_delay_where_the_first_sample_is_replayed(at: float) -> None:
    """One look at each host is enough to say so, whoever answered first."""
    assert r1(told(P1, ("r1", standby(at, 1000)))).delay_seconds == 0


@pytest.mark.parametrize("at", [100.5, 100.9999])
def test_delay_ignores_samples_taken_after_the_answer(at: float) -> None:
    """A replica is not behind for lack of what an idle primary wrote after it was asked."""
    assert r1(told(P1, ("r1", standby(at, 1000)), ("default", primary(101, 2000)))).delay_seconds == 0


# --- Failures ---


def test_failed_host_is_offline_until_a_later_probe_succeeds() -> None:
    """A probe that was under way when the host failed does not bring it back; one that starts afterwards does."""
    failed = [P1, ("r1", standby(100, 1000)), ("r1", Failure(100.5, "a request failed"))]
    assert (r1(told(*failed)).state, r1(told(*failed)).why) == (HostState.OFFLINE, "a request failed")
    under_way = ("r1", standby(100.505, 1000))
    assert r1(told(*failed, under_way)).state is HostState.OFFLINE
    assert r1(told(*failed, under_way, ("r1", standby(101, 1000)))).state is HostState.ONLINE


def test_returning_host_must_have_replayed_a_sample_again() -> None:
    """A replica that crashed and came back behind every sample is not used."""
    host = r1(told(P1, ("r1", standby(100, 1000)), ("r1", Failure(101, "gone")), ("r1", standby(102, 10))))
    assert host.state is HostState.UNKNOWN


def test_not_now_keeps_the_state_and_lets_lag_age() -> None:
    """A cancelled probe does not take the host out, until what it is not known to have replayed is too old."""
    outcomes = [P1, ("r1", standby(100, 1000)), ("default", primary(101, 2000)), ("r1", standby(101, 1000))]
    assert r1(told(*outcomes, ("r1", NotNow(102)))).state is HostState.ONLINE
    assert r1(told(*outcomes, ("r1", NotNow(125)))).state is HostState.LAGGING


def test_silent_primary_is_offline_and_keeps_its_last_position() -> None:
    """It is offline with the reason, and its timeline is still known."""
    host = told(P1, ("default", Failure(101, "connection refused"))).primary
    assert (host.state, host.why, host.timeline, host.replay_lsn) == (HostState.OFFLINE, "connection refused", 1, 1000)


def test_primary_that_is_a_standby_is_offline() -> None:
    """An alias that points at a standby is no primary, and its position is no sample."""
    topology = told(("default", standby(100, 1000)))
    assert (topology.primary.state, topology.samples) == (HostState.OFFLINE, ())
    assert "standby" in topology.primary.why


def test_drained_replica_does_not_age_while_the_primary_is_silent() -> None:
    """What the dead primary did not send will not come: the lag stays what it was, and reads go on."""
    outcomes = [P1, ("r1", standby(100, 1000)), ("default", primary(101, 2000)), ("default", Failure(102, "gone"))]
    host = r1(told(*outcomes, ("r1", standby(500, 1500, received_lsn=1500))))
    assert (host.state, host.lag_seconds, host.delay_seconds) == (HostState.ONLINE, 0, None)


def test_undrained_replica_ages_while_the_primary_is_silent() -> None:
    """A replica that has more to replay and does not is lagging."""
    outcomes = [P1, ("r1", standby(100, 1000)), ("default", primary(101, 2000)), ("default", Failure(102, "gone"))]
    assert r1(told(*outcomes, ("r1", standby(500, 1500, received_lsn=2000)))).state is HostState.LAGGING


HALF = {"received_lsn": 2000, "has_receiver": False}


def test_half_a_record_does_not_age_while_the_primary_is_silent() -> None:
    """Killed in the middle of a bulk load, the primary leaves replicas with bytes that they can never replay."""
    outcomes = [P1, ("r1", standby(100, 1000)), ("default", primary(101, 3000)), ("default", Failure(102, "gone"))]
    first, second = ("r1", standby(500, 1500, **HALF)), ("r1", standby(501, 1500, **HALF))
    assert r1(told(*outcomes, first)).state is HostState.LAGGING
    assert (r1(told(*outcomes, first, second)).state, r1(told(*outcomes, first, second)).lag_seconds) == (HostState.ONLINE, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"has_receiver": True}, id="more may come"),
        pytest.param({}, {"is_replay_paused": True}, id="paused"),
        pytest.param({}, {"is_replay_delayed": True}, id="delayed"),
        pytest.param({"received_lsn": 1900}, {}, id="it received"),
        pytest.param({"lsn": 1400}, {}, id="it replayed"),
    ],
)
def test_whatever_may_yet_be_replayed_goes_on_ageing(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Only a replica that can do nothing more has drained."""
    outcomes = [P1, ("r1", standby(100, 1000)), ("default", primary(101, 3000)), ("default", Failure(102, "gone"))]
    answers = [("r1", standby(at, **{"lsn": 1500, **HALF, **changes})) for at, changes in ((500, before), (501, after))]
    assert r1(told(*outcomes, *answers)).state is HostState.LAGGING


def test_returning_replica_is_online_without_primary_once_it_has_replayed_all() -> None:
    """Also when this process knew the primary: after a restart it need not reach a position that nobody will send any more."""
    outcomes = [P1, ("r1", standby(100, 1000)), ("default", primary(101, 3000)), ("default", Failure(102, "gone"))]
    restarted = [("r1", Failure(103, "gone")), ("r1", standby(104, 500, received_lsn=None))]
    assert r1(told(*outcomes, *restarted)).state is HostState.UNKNOWN
    assert r1(told(*outcomes, *restarted, ("r1", standby(105, 500, received_lsn=None)))).state is HostState.ONLINE


def test_stumbling_primary_brings_nobody_back() -> None:
    """A replica restored from a backup of yesterday has replayed all it has, too, and one failed look at the primary is no loss of it."""
    outcomes = [P1, ("r1", standby(100.5, 10)), ("default", Failure(101, "no answer")), ("r1", standby(101.5, 10))]
    assert r1(told(*outcomes)).state is HostState.UNKNOWN
    assert r1(told(*outcomes, ("default", primary(102, 1000)), ("r1", standby(102.5, 10)))).state is HostState.UNKNOWN


# --- The primary was never seen ---

GONE = ("default", Failure(99, "connection refused"))


def test_replica_is_online_without_primary_once_replay_has_ended() -> None:
    """Two answers with the same position, at the end of what was received, are needed."""
    assert r1(told(GONE, ("r1", standby(100, 1000)))).state is HostState.UNKNOWN
    assert r1(told(GONE, ("r1", standby(100, 1000)), ("r1", standby(101, 1000)))).state is HostState.ONLINE


@pytest.mark.parametrize("changes", [{"received_lsn": 2000}, {"is_replay_paused": True}])
def test_replica_with_more_to_replay_is_not_used_without_primary(changes: dict[str, Any]) -> None:
    """Received but not replayed, or paused: unknown."""
    assert r1(told(GONE, ("r1", standby(100, 1000, **changes)), ("r1", standby(101, 1000, **changes)))).state is HostState.UNKNOWN


def test_only_the_replica_that_is_ahead_is_used_without_primary() -> None:
    """The one behind is not used while the other answers."""
    outcomes = [GONE, *[(alias, standby(at, lsn)) for at in (100, 101) for alias, lsn in (("r1", 1000), ("r2", 1001))]]
    assert [host.alias for host in told(*outcomes).online] == ["r2"]
    assert [host.alias for host in told(*outcomes, ("r2", Failure(102, "gone"))).online] == ["r1"]


# --- Slow ---


def test_host_that_is_much_slower_than_its_peer_loses_weight_and_not_its_place() -> None:
    """200 ms where the other takes 1 ms, of which 21 are tolerated; the reason says so, until it is quick again."""
    outcomes = [P1, ("r1", standby(100, 1000, latency_seconds=0.001)), ("r2", standby(100, 1000, latency_seconds=0.2))]
    slow = told(*outcomes).by_alias["r2"]
    assert (slow.state, slow.weight, slow.latency_seconds) == (HostState.ONLINE, pytest.approx(3 * 0.021 / 0.2), 0.2)
    assert slow.why == "caught up; answers in 200 ms, the fastest in 1 ms: weight 0.32"
    assert r1(told(*outcomes)).weight == 1
    quick = told(*outcomes, *[("r2", standby(101 + second, 1000, latency_seconds=0.001)) for second in range(10)])
    assert (quick.by_alias["r2"].weight, quick.by_alias["r2"].why) == (3, "caught up")


def test_only_who_answers_is_a_peer() -> None:
    """A quick host that is out makes nobody slow."""
    outcomes = [P1, ("r1", standby(100, 1000, latency_seconds=0.001)), ("r2", standby(100, 1000, latency_seconds=0.2))]
    assert told(*outcomes, ("r1", Failure(101, "gone"))).by_alias["r2"].weight == 3


# --- Nobody has looked ---


def slept(*outcomes: tuple[str, Outcome]) -> ClusterHistory:
    """Return what is remembered when the process sleeps from 101 to 900, and what follows."""
    history = looked_at(remembered(P1, ("r1", standby(100, 1000))), 101, 6)
    for alias, outcome in outcomes:
        history = recorded(looked_at(history, outcome.at, 6), alias, outcome)
    return history


def test_topology_tells_its_age() -> None:
    """It is stale when nobody has looked for longer than allowed, and never where nobody looks at all."""
    topology = assess(BLANK, slept(), 20)
    assert topology.as_of == 101
    assert [topology.is_stale(now, 6) for now in (101, 107, 107.1)] == [False, False, True]
    assert not BLANK.is_stale(1000, 6)


def test_who_has_slept_asks_everybody_again() -> None:
    """A replica that was cut off meanwhile would seem to be behind only since now; nobody is trusted before they have shown themselves."""
    before = [("r1", standby(900, 1000))]
    assert assess(BLANK, slept(*before), 20).online == ()
    assert r1(assess(BLANK, slept(("default", primary(900, 9000)), *before), 20)).state is HostState.UNKNOWN
    assert r1(assess(BLANK, slept(("default", primary(900, 9000)), ("r1", standby(900, 9000))), 20)).state is HostState.ONLINE


def test_short_silence_makes_nobody_unknown() -> None:
    """Six seconds without a look are allowed here."""
    assert r1(assess(BLANK, slept(("default", primary(107, 2000))), 20)).state is HostState.ONLINE


def test_what_was_proved_outlives_sleep() -> None:
    """Who had WAL that the primary never wrote still has it."""
    history = remembered(P1, ("r1", standby(100, 1100)), ("default", primary(101, 1050)))
    for alias, outcome in (("default", primary(900, 9000)), ("r1", standby(900, 9000))):
        history = recorded(looked_at(history, outcome.at, 6), alias, outcome)
    assert r1(assess(BLANK, looked_at(looked_at(history, 101, 6), 900, 6), 20)).state is HostState.DIVERGED
    assert r1(assess(BLANK, history, 20)).state is HostState.DIVERGED


# --- Diverged ---


def diverged(*outcomes: tuple[str, Outcome]) -> bool:
    return r1(told(P1, ("r1", standby(100, 1000)), *outcomes)).state is HostState.DIVERGED


def test_ahead_of_an_earlier_sample_proves_nothing() -> None:
    """A healthy replica has replayed what the primary wrote since it was sampled."""
    assert not diverged(("r1", standby(100.2, 1100)))


def test_ahead_of_a_later_sample_is_diverged() -> None:
    """It has WAL that the primary never wrote."""
    assert diverged(("r1", standby(100.2, 1100)), ("default", primary(101, 1050)))


def test_ahead_is_found_also_when_the_replica_answered_again_meanwhile() -> None:
    """The answer before the latest counts, too."""
    assert diverged(("r1", standby(100.2, 1100)), ("r1", standby(100.99, 1100)), ("default", primary(101, 1050)))


def test_diverged_stays_diverged_when_the_primary_overtakes_it() -> None:
    """Passing its position does not undo what the primary never wrote."""
    assert diverged(
        ("r1", standby(100.2, 1100)), ("default", primary(101, 1050)), ("default", primary(102, 9000)), ("r1", standby(103, 1100))
    )


def test_diverged_stays_diverged_while_the_primary_is_silent() -> None:
    """A moment without the primary proves nothing better."""
    assert diverged(
        ("r1", standby(100.2, 1100)), ("default", primary(101, 1050)), ("default", Failure(102, "gone")), ("r1", standby(103, 1100))
    )


AHEAD = [("r1", standby(100.2, 1100, server_started_seconds=1)), ("default", primary(101, 1050)), ("default", primary(102, 9000))]
BEFORE_OVERTAKING = AHEAD[:2]


def again(lsn: int, **changes: Any) -> list[tuple[str, Outcome]]:
    """Return the answer of the replica after its next start."""
    return [("r1", standby(110, lsn, **{"server_started_seconds": 2, **changes}))]


@pytest.mark.parametrize(
    ("outcomes", "is_out"),
    [
        pytest.param([*BEFORE_OVERTAKING, *again(1050)], False, id="made anew: it lacks what it had"),
        pytest.param([*AHEAD, *again(9000)], False, id="made anew, from a primary that has moved on"),
        pytest.param([*AHEAD, *again(1100)], True, id="restarted, and waits for a primary that will not send"),
        pytest.param([*AHEAD, *again(1000, has_receiver=False)], True, id="restarted, and replays its own files"),
        pytest.param([*AHEAD, *again(9000, has_receiver=False)], True, id="restarted, and may have had more in its files"),
        pytest.param([*AHEAD, *again(1050, server_started_seconds=1)], True, id="its backends crashed, and it went back a little"),
        pytest.param([*AHEAD, *again(9000, server_started_seconds=1)], True, id="not restarted"),
        pytest.param([*AHEAD, *again(9000, timeline=None)], False, id="made anew, and its timeline cannot be seen"),
    ],
)
def test_only_a_replica_that_was_made_anew_is_no_longer_diverged(outcomes: list[tuple[str, Outcome]], is_out: bool) -> None:
    """Without pg_read_all_stats: a new start, and then what it could not have shown with the WAL that it should not have had."""
    assert diverged(*outcomes) == is_out
    if not is_out:
        assert r1(told(P1, ("r1", standby(100, 1000)), *outcomes)).state is HostState.ONLINE


def test_more_that_was_received_while_ahead_is_no_proof_after_a_restart() -> None:
    """Not until it is beyond all that it had in its files."""
    more = ("r1", standby(103, 1200, received_lsn=1300, server_started_seconds=1))
    assert diverged(*AHEAD, more, *again(1250))
    assert diverged(*AHEAD, more, *again(1300))
    assert not diverged(*AHEAD, more, *again(1301))


def test_left_behind_on_the_old_timeline_is_never_used() -> None:
    """Neither before nor when the new timeline's position overtakes it, restarted or not, whatever of its timeline can be seen."""
    left = standby(100.5, 1100, server_started_seconds=1)
    for changes in ({}, {"timeline": None}, {"is_timeline_certain": True}):
        for started in (1, 2):
            history = remembered(P1, ("r1", standby(100, 1000)), ("r1", left), ("default", primary(101, 1050, timeline=2)))
            for at, lsn in ((102, 1060), (103, 1100), (104, 1101), (105, 9000)):
                history = recorded(history, "r1", standby(at, 1100, server_started_seconds=started, **changes))
                assert not assess(BLANK, history, 20).online
                history = recorded(history, "default", primary(at + 0.5, lsn, timeline=2))
                assert not assess(BLANK, history, 20).online


def test_rebuilt_on_the_new_timeline_is_welcome() -> None:
    """Its control data says so, whatever its position."""
    left = ("r1", standby(100.5, 1100, server_started_seconds=1))
    failover = [left, ("default", primary(101, 1050, timeline=2)), ("default", primary(102, 9000, timeline=2))]
    assert diverged(*failover)
    for lsn in (1100, 9000):
        rebuilt = ("r1", standby(110, lsn, server_started_seconds=2, timeline=2, has_receiver=False))
        assert not diverged(*failover, rebuilt)


def test_promoted_that_was_made_a_standby_is_judged_anew() -> None:
    """Its control data may be minutes old, which is all that is known of it now."""
    fought = [("r1", standby(101, 1100, in_recovery=False, timeline=2)), ("default", primary(102, 1050))]
    host = r1(told(P1, ("r1", standby(100, 1000)), *fought, ("default", primary(103, 2000, timeline=3)), ("r1", standby(104, 2000))))
    assert (host.state, "by its control data" in host.why) == (HostState.UNKNOWN, True)


def test_who_was_ahead_of_another_primary_may_follow_this_one() -> None:
    """The new one has what the old one had lost."""
    new = ("default", primary(103, 2000, timeline=2))
    was_ahead = ("r1", standby(104, 2000, timeline=2, server_started_seconds=1))
    assert r1(told(P1, ("r1", standby(100, 1000)), *BEFORE_OVERTAKING, new, was_ahead)).state is HostState.ONLINE


def test_two_aliases_of_the_promoted_server() -> None:
    """The primary's alias has followed it: nothing is wrong with it, but it is no replica; and as such it can come back."""
    running = {"in_recovery": False, "timeline": 2, "server_started_seconds": 5}
    followed = [
        ("r1", standby(101, 1100, **running)),
        ("default", primary(102, 1050)),
        ("default", primary(103, 1200, timeline=2, server_started_seconds=5)),
    ]
    for more in ([], [("r1", standby(103.5, 1200, **running))]):
        host = r1(told(P1, ("r1", standby(100, 1000)), *followed, *more))
        assert (host.state, host.why, host.is_promoted) == (HostState.OFFLINE, "is the primary itself, and no replica of it", True)
    rebuilt = ("r1", standby(110, 1200, timeline=2, server_started_seconds=9))
    assert r1(told(P1, ("r1", standby(100, 1000)), *followed, rebuilt)).state is HostState.ONLINE


def test_promoted_is_online_once_the_old_primary_is_a_standby() -> None:
    """Also if it was proved to have taken writes beside it, and then nobody else is diverged for following it either."""
    promoted = standby(101, 1100, in_recovery=False, timeline=2)
    fought = [P1, ("r1", standby(100, 1000)), ("r2", standby(100, 1000)), ("r1", promoted), ("default", primary(102, 1050))]
    assert r1(told(*fought)).state is HostState.DIVERGED
    over = [("default", Failure(103, "gone")), ("r1", promoted), ("default", standby(110, 1100, timeline=2))]
    host = r1(told(*fought, *over, ("r1", standby(111, 1200, in_recovery=False, timeline=2))))
    assert (host.state, host.why) == (HostState.ONLINE, "promoted, and the primary has become a standby")
    follower = standby(111, 1200, timeline=2, is_timeline_certain=True)
    assert told(*fought, *over, ("r2", follower)).by_alias["r2"].state is HostState.ONLINE


def test_grant_of_control_data_is_no_change_of_the_primary() -> None:
    """What could not be seen before has not changed."""
    unseen = primary(100, 1000, system_identifier=None)
    topology = told(
        ("default", unseen), ("r1", standby(100, 1000)), ("default", primary(101, 1100)), ("r1", standby(101, 1000, timeline=None))
    )
    assert ([sample.lsn for sample in topology.samples], r1(topology).state) == ([1000, 1100], HostState.ONLINE)


def test_streaming_on_the_primarys_timeline_ends_divergence() -> None:
    """A primary does not stream to a standby that is ahead of it."""
    outcomes = [("r1", standby(100.2, 1100)), ("default", primary(101, 1050)), ("default", primary(102, 2000))]
    assert not diverged(*outcomes, ("r1", standby(103, 2000, is_timeline_certain=True)))


def test_other_system_identifier_is_diverged() -> None:
    """A server of another cluster is no replica."""
    assert diverged(("r1", standby(101, 1000, system_identifier=8)))


@pytest.mark.parametrize("database", ["shop", "shop_2024"])
@pytest.mark.parametrize("changes", [{}, {"in_recovery": False}])
def test_other_database_of_the_right_cluster_is_diverged(database: str, changes: dict[str, Any]) -> None:
    """Whatever it is called, since a pooler may call it like the primary's. The first look is enough, and both names are told."""
    leader = ("default", primary(100, 1000, database_oid=5, database="shop"))
    copy = standby(100.1, 1000, database_oid=6, database=database, **changes)
    for outcomes in ([leader, ("r1", copy)], [("r1", copy), leader]):
        host = r1(told(*outcomes))
        assert (host.state, f"{database!r} (OID 6)" in host.why, "'shop' (OID 5)" in host.why) == (HostState.DIVERGED, True, True)
    # The primary's silence makes it no better, and nor does what this process sleeps through.
    silent = (*outcomes, ("default", Failure(101, "down")), ("r1", replace(copy, started_at=101.5, at=102)), ("r1", replace(copy, at=103)))
    assert r1(told(*silent)).state is HostState.DIVERGED
    assert r1(assess(BLANK, looked_at(remembered(*outcomes), 200, 3), 20)).state is not HostState.ONLINE


def test_replica_that_has_come_to_the_right_database_is_used() -> None:
    """What was proved about one database says nothing about another."""
    leader = ("default", primary(100, 1000, database_oid=5, database="shop"))
    copy, right = (standby(at, 1000, database_oid=oid, database="shop") for at, oid in ((100.1, 6), (101.1, 5)))
    assert r1(told(leader, ("r1", copy))).state is HostState.DIVERGED
    assert r1(told(leader, ("r1", copy), ("r1", right))).state is HostState.ONLINE


@pytest.mark.parametrize(
    ("configured", "answered", "expected"),
    [
        ("shop", "shop", HostState.ONLINE),
        ("shop", "shop_2024", HostState.UNKNOWN),
        (None, "shop_2024", HostState.ONLINE),
        ("shop", None, HostState.ONLINE),
    ],
)
@pytest.mark.parametrize("in_recovery", [True, False])
def test_without_its_primary_only_a_database_of_the_same_name_is_used(
    configured: str | None, answered: str | None, expected: HostState, in_recovery: bool
) -> None:
    """The primary was down when this process started: nothing but the name can be compared."""
    history = ClusterHistory(database=configured)
    answers = [standby(at, 1000, database_oid=6, database=answered, in_recovery=in_recovery) for at in (101, 102)]
    for alias, outcome in (("default", Failure(100, "down")), *(("r1", answer) for answer in answers)):
        history = recorded(history, alias, outcome)
    host = r1(assess(BLANK, history, 20))
    assert host.state is expected
    if expected is HostState.UNKNOWN:
        assert "'shop_2024', and the primary has not told yet whether it is the 'shop'" in host.why
        seen = recorded(history, "default", primary(103, 1000, database_oid=6, database="shop_2024"))
        again = recorded(seen, "r1", replace(answers[-1], started_at=103.5, at=104, in_recovery=True))
        assert r1(assess(BLANK, again, 20)).state is HostState.ONLINE


def test_unknown_system_identifier_is_tolerated() -> None:
    """Where control data cannot be read, nothing can be compared."""
    assert not diverged(("r1", standby(101, 1000, system_identifier=None)))


def test_promoted_while_the_primary_answers_is_diverged() -> None:
    """At first it is only not used; an answer of the primary that comes later proves it."""
    promoted = ("r1", standby(101, 1100, in_recovery=False, timeline=2))
    assert r1(told(P1, promoted)).state is HostState.UNKNOWN
    assert diverged(promoted, ("default", primary(102, 1050)))


def test_promoted_while_the_primary_is_gone_is_online() -> None:
    """It is in sync with itself, but its position says nothing about the old primary's."""
    host = r1(told(P1, ("default", Failure(101, "gone")), ("r1", standby(102, 1100, in_recovery=False, timeline=2))))
    assert (host.state, host.replay_lsn, host.delay_seconds, host.is_promoted) == (HostState.ONLINE, None, None, True)


def test_promoted_beside_a_living_primary_stays_out_when_that_goes_silent() -> None:
    """What was proved while the primary answered stays true while it does not."""
    promoted = ("r1", standby(101, 1100, in_recovery=False, timeline=2))
    assert diverged(promoted, ("default", primary(102, 1050)), ("default", Failure(103, "gone")), ("r1", promoted[1]))


def test_failover_seen_by_the_replica_first_does_not_make_it_diverged() -> None:
    """The new primary is asked before the death of the old one is noticed: it is used once that is."""
    promoted = ("r1", standby(101, 1100, in_recovery=False, timeline=2))
    assert r1(told(P1, promoted, ("default", Failure(101.01, "gone")), promoted)).state is HostState.ONLINE


# --- Timelines ---

NEW_PRIMARY = ("default", primary(101, 2000, timeline=2))


def test_streaming_on_the_new_timeline_is_online() -> None:
    """With pg_read_all_stats a failover is over as soon as the replica follows."""
    assert r1(told(P1, NEW_PRIMARY, ("r1", standby(102, 2000, timeline=2, is_timeline_certain=True)))).state is HostState.ONLINE


def test_streaming_on_the_old_timeline_is_diverged() -> None:
    """It follows somebody else, whatever its position."""
    assert r1(told(P1, NEW_PRIMARY, ("r1", standby(102, 2000, timeline=1, is_timeline_certain=True)))).state is HostState.DIVERGED


def test_control_data_of_the_old_timeline_is_not_enough() -> None:
    """Without pg_read_all_stats it is not used until its control data shows the new timeline, and the reason says what to grant."""
    host = r1(told(P1, NEW_PRIMARY, ("r1", standby(102, 2000, timeline=1))))
    assert host.state is HostState.UNKNOWN
    assert "pg_read_all_stats" in host.why
    assert r1(told(P1, NEW_PRIMARY, ("r1", standby(400, 2000, timeline=2)))).state is HostState.ONLINE


@pytest.mark.parametrize(("outcomes", "state"), [([P1], HostState.ONLINE), ([P1, NEW_PRIMARY], HostState.UNKNOWN)])
def test_invisible_timeline_is_tolerated_until_the_primary_changes_its_own(outcomes: list[tuple[str, Outcome]], state: HostState) -> None:
    """Where nothing can be seen, only a change is suspicious."""
    assert r1(told(*outcomes, ("r1", standby(102, 2000, timeline=None)))).state is state


def test_new_timeline_makes_everybody_prove_themselves_again() -> None:
    """Samples of the old timeline are forgotten, and so is who had reached them."""
    topology = told(P1, ("r1", standby(100, 1000)), NEW_PRIMARY, ("r1", standby(102, 1500, timeline=2, is_timeline_certain=True)))
    assert [sample.lsn for sample in topology.samples] == [2000]
    assert r1(topology).state is HostState.UNKNOWN


def test_crashed_primary_that_lost_wal_keeps_its_replicas() -> None:
    """Samples beyond its new position go; a replica that never had what was lost stays online."""
    topology = told(
        P1, ("r1", standby(100, 1000)), ("default", primary(101, 1500)), ("default", primary(102, 1200)), ("r1", standby(103, 1200))
    )
    assert [sample.lsn for sample in topology.samples] == [1000, 1200]
    assert r1(topology).state is HostState.ONLINE


def test_mirror_is_online_without_any_probe() -> None:
    """A test mirror is the primary itself."""
    blank = Topology(primary=BLANK.primary, replicas=(Host(alias="r1", is_mirror=True),))
    assert assess(blank, ClusterHistory(), 20).online[0].lag_seconds == 0


# --- Samples ---


def test_horizon_covers_three_times_the_threshold() -> None:
    """At least a minute."""
    assert [horizon_seconds(lag) for lag in (None, 1, 20, 100)] == [60, 60, 60, 300]


def test_old_samples_are_forgotten_but_for_one() -> None:
    """The oldest is as old as the horizon at least."""
    samples: tuple[Sample, ...] = ()
    for second in range(200):
        samples = with_sample(samples, Sample(second, second), 60)
    assert [samples[0].at, samples[-1].at] == [139, 199]


@given(st.lists(st.tuples(st.floats(0.001, 100), st.integers(-3, 5)), max_size=60))
def test_samples_ascend_and_end_with_the_newest(steps: list[tuple[float, int]]) -> None:
    """Whatever the primary does, both fields ascend, and the newest sample is the last."""
    samples: tuple[Sample, ...] = ()
    at, lsn = 0.0, 100
    for seconds, written in steps:
        at, lsn = at + seconds, lsn + written
        samples = with_sample(samples, Sample(at, lsn), 60)
        assert samples[-1] == (Sample(at, lsn))
        assert list(samples) == sorted(samples, key=lambda sample: (sample.at, sample.lsn))
        assert [sample.lsn for sample in samples] == sorted(sample.lsn for sample in samples)


def test_frequent_samples_do_not_pile_up() -> None:
    """However short the interval, their number is bounded."""
    samples: tuple[Sample, ...] = ()
    for step in range(30_000):
        samples = with_sample(samples, Sample(step / 400, step), 60)
    assert len(samples) <= 2 * MAX_SAMPLES
    assert samples[0].at <= samples[-1].at - 60


@given(
    st.lists(st.tuples(st.sampled_from(["default", "r1", "r2"]), st.integers(0, 30), st.integers(900, 1100), st.booleans()), max_size=30)
)
def test_lag_is_never_negative(steps: list[tuple[str, int, int, bool]]) -> None:
    """Whatever order the answers come in, numbers of an answering host make sense."""
    at = 100.0
    history = ClusterHistory()
    for alias, seconds, lsn, works in steps:
        at += seconds
        outcome: Outcome = Failure(at, "gone") if not works else primary(at, lsn) if alias == "default" else standby(at, lsn)
        history = recorded(history, alias, outcome)
        for host in assess(BLANK, history, 20).replicas:
            assert (host.lag_seconds or 0) >= 0
            assert (host.lag_bytes or 0) >= 0
            assert (host.delay_seconds or 0) >= 0
            assert host.state is not HostState.ONLINE or host.lag_seconds is None or host.lag_seconds <= 20


def test_replica_is_not_back_on_its_old_timeline_when_its_receiver_ends() -> None:
    """After a failover the new primary goes down, too: the receiver that told the new timeline is gone, and control data is minutes old."""
    run: dict[str, Any] = {"server_started_seconds": 5.0}
    streaming = standby(12.0, 100, timeline=2, is_timeline_certain=True, sees_receiver=True, **run)
    cut_off = standby(14.0, 100, timeline=1, has_receiver=False, **run)
    before = [("default", primary(11.0, 100, timeline=2)), ("r1", streaming), ("default", primary(13.0, 100, timeline=2))]
    for answers, state in ((cut_off, HostState.ONLINE), (replace(cut_off, server_started_seconds=6.0), HostState.UNKNOWN)):
        host = told(*before, ("r1", answers)).by_alias["r1"]
        assert host.state is state, host.why
