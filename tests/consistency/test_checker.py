"""The checker: it complains about every kind of broken history, about nothing else, and shows the shortest one."""

from __future__ import annotations

from collections import Counter
from math import inf
from pathlib import Path
from typing import Any

import pytest

from .checker import (
    FinalState,
    Problem,
    Violation,
    backward_reads,
    bound_reads,
    doubled_writes,
    forbidden_errors,
    lost_writes,
    missed_by_tasks,
    missed_own_writes,
    published_tokens,
)
from .faults import Allowance, Fault, Reads
from .faults.network import RepliesLost
from .faults.primary import Promotion
from .faults.redis import RedisFrozen, waiting_per_worker
from .faults.replicas import ReplicaFrozen
from .history import HistoryFile, Operation, TaskRun, read_history, task_run
from .proxy import LostReply
from .result import LEAST_BOUND_READS, Result, table
from .statistics import percentile
from .wording import ROWS_DELIVERED

FAULTS_NEED_NO_WORLD: Any = None


def read(started: float, *tokens: str, number: int = 0, user: int = 1, **more: Any) -> Operation:
    given = {"ended": started + 0.1, "value": len(tokens), "hosts": ("replica1",), "reasons": ("replica",)}
    return operation(number=number, user=user, is_write=False, started=started, tokens=tokens, **{**given, **more})


def write(started: float, ended: float, *tokens: str, number: int = 0, user: int = 1, **more: Any) -> Operation:
    return operation(number=number, user=user, is_write=True, started=started, ended=ended, tokens=tokens, **more)


def operation(**given: Any) -> Operation:
    return Operation(**{"client": 0, "kind": "orm", "status": 200, "device": "browser1", **given})


def final(*tokens: str, user: int = 1) -> FinalState:
    """Return a final primary that has these tokens, of one user."""
    return FinalState(tokens=Counter(tokens), registers={user: len(tokens)}, users=dict.fromkeys(tokens, user))


class Calm(Fault):
    """A fault that allows nothing and was seen."""

    def __init__(self) -> None:
        super().__init__(FAULTS_NEED_NO_WORLD)
        self.evidence = ["seen"]


def result(history: list[Operation], state: FinalState, fault: Fault | None = None, **more: Any) -> Result:
    given = {"title": "a fault", "mode": "read_your_writes", "seed": 1, **more}
    return Result(history=history, final=state, fault=fault or Calm(), **given)


# --- Read your writes ---


@pytest.mark.parametrize(
    ("history", "missed"),
    [
        pytest.param([write(1, 2, "a"), read(3, "a")], "", id="reads own write"),
        pytest.param([write(1, 2, "a"), read(3)], "a", id="misses it"),
        pytest.param([write(1, 2, "a"), read(3, device="browser2")], "a", id="misses it on another device"),
        pytest.param([write(1, 2, "a"), read(1.9)], "", id="began before it was acknowledged"),
        pytest.param([write(1, 2, "a", user=2), read(3)], "", id="somebody else's"),
        pytest.param([write(1, 2, "a", status=500), read(3)], "", id="was not acknowledged"),
        pytest.param([write(1, 2, "a"), read(3, status=500)], "", id="was answered with an error"),
        pytest.param([write(1, 4, "a"), write(2, 3, "b"), read(3.5, "b"), read(5, "b")], "a", id="later write acknowledged first"),
        pytest.param([write(1, 2, "a", "a.hook"), read(3, "a")], "a.hook", id="misses what a hook wrote"),
        pytest.param([read(3), write(1, 2, "a")], "a", id="in any order"),
    ],
)
def test_finds_reads_that_miss_own_writes(history: list[Operation], missed: str) -> None:
    """A read is wrong if it lacks something that was acknowledged to the same user before it began."""
    found = missed_own_writes(history, final("a", "a.hook", "b"))
    assert [violation.detail for violation in found] == ([f"misses {missed}"] if missed else [])


def test_what_did_not_survive_may_be_missed() -> None:
    """What a promotion has lost nobody can read."""
    assert missed_own_writes([write(1, 2, "lost"), read(3)], final()) == []


def test_register_must_count_what_was_acknowledged() -> None:
    """A register that is lower than the tokens that are due was read from the past, even if the tokens were not."""
    (violation,) = missed_own_writes([write(1, 2, "a"), write(3, 4, "b"), read(5, "a", "b", value=1)], final("a", "b"))
    assert violation.detail == "register 1 after 2 writes"


def test_shows_the_latest_write_that_is_missed_and_the_read() -> None:
    """The shortest history: two operations, which show the same violation alone."""
    state = final("a", "b", "c")
    history = [write(1, 2, "a"), write(3, 4, "b"), read(4.5, "a", "b"), write(5, 6, "c"), read(7, "a"), read(8, "a", "b", "c")]
    (violation,) = missed_own_writes(history, state)
    assert violation.operations == (history[3], history[4])
    (again,) = missed_own_writes(violation.operations, state)
    assert again.operations == violation.operations


# --- Monotonic reads ---


@pytest.mark.parametrize(
    ("history", "lacks"),
    [
        pytest.param([read(1, "a"), read(2, "a", "b")], "", id="goes on"),
        pytest.param([read(1, "a", "b"), read(2, "a")], "b", id="goes back"),
        pytest.param([read(1, "a"), read(2, device="browser2")], "a", id="goes back on another device"),
        pytest.param([read(1, "a"), read(1.05)], "", id="overlap"),
        pytest.param([read(1, "a", user=2), read(2)], "", id="somebody else's"),
        pytest.param([read(1, "a"), read(2, status=500)], "", id="was answered with an error"),
        pytest.param([read(1, "gone"), read(2)], "", id="did not survive"),
        pytest.param([read(2), read(1, "a")], "a", id="in any order"),
    ],
)
def test_finds_reads_that_go_back(history: list[Operation], lacks: str) -> None:
    """A read is wrong if it lacks what an earlier-completed read of the same user has shown."""
    found = backward_reads(history, final("a", "b"))
    assert [violation.detail for violation in found] == ([f"lacks {lacks}"] if lacks else [])


def test_shows_the_latest_read_that_saw_more() -> None:
    """The shortest history: the read that saw it last, and the one that did not."""
    state = final("a", "b")
    history = [read(1, "a"), read(2, "a"), read(3, "b", "a"), read(4, "b")]
    (violation,) = backward_reads(history, state)
    assert violation.operations == (history[2], history[3])
    assert len(backward_reads(violation.operations, state)) == 1


def test_going_back_breaks_a_promise_in_monotonic_mode_only() -> None:
    """In the other mode it is counted, no more."""
    history = [read(1, "a"), read(2)]
    assert [violation.problem for violation in result(history, final("a"), mode="monotonic").violations] == [Problem.WENT_BACK]
    plain = result(history, final("a"))
    assert plain.violations == []
    assert len(plain.backwards) == 1


# --- Lost, twice, forbidden ---


def test_finds_what_is_lost() -> None:
    """An acknowledged write must be on the final primary with all that it wrote; one that failed need not."""
    history = [write(1, 2, "a", "a.hook"), write(3, 4, "b"), write(5, 6, "c", status=500)]
    (violation,) = lost_writes(history, final("a", "b"))
    assert (violation.operations, violation.detail) == ((history[0],), "a.hook is not there")


def test_promotion_excuses_only_what_began_before_it() -> None:
    """What began after the old primary was fenced was acknowledged by the new one."""
    fault = Promotion(FAULTS_NEED_NO_WORLD)
    fault.fenced_at, fault.promoted_at = 10.0, 11.0
    judged = result([write(8, 9, "before"), write(10.5, 12, "after")], final(), fault)
    assert [violation.operations[0].tokens for violation in judged.lost] == [("after",)]
    assert [violation.operations[0].tokens for violation in judged.excused] == [("before",)]


def test_finds_what_is_there_twice() -> None:
    """Also what failed, and what nobody in the history wrote."""
    history = [write(1, 2, "a"), write(3, 4, "b", status=500)]
    found = doubled_writes(history, final("a", "b", "b", "x", "x"))
    assert {(violation.problem, violation.detail) for violation in found} == {
        (Problem.TWICE, "b is there 2 times"),
        (Problem.TWICE, "x is there 2 times"),
    }


def test_finds_registers_that_differ_from_their_tokens() -> None:
    """Half a write is as wrong as two."""
    (violation,) = doubled_writes([], FinalState(tokens={"a": 1}, registers={1: 2}, users={"a": 1}))
    assert violation.problem is Problem.UNBALANCED


def test_finds_errors_that_are_not_allowed() -> None:
    """An error, no answer at all, and an answer that has not come are all errors."""
    history = [read(1), read(2, status=500), read(3, status=0), read(4, status=0, ended=inf)]
    assert [violation.operations[0].started for violation in forbidden_errors(history)] == [2, 3, 4]
    assert forbidden_errors(history, lambda failed: failed.started > 1) == []


@pytest.mark.parametrize(
    ("failed", "reads", "is_allowed"),
    [
        pytest.param(read(12), Reads.NONE, False, id="read"),
        pytest.param(read(12), Reads.ALL, True, id="read where all may fail"),
        pytest.param(read(20), Reads.ALL, False, id="read after it"),
        pytest.param(read(12), Reads.FRESH, True, id="read after a fresh write"),
        pytest.param(read(12, user=2), Reads.FRESH, False, id="read without a fresh write"),
        pytest.param(read(12, user=3), Reads.FRESH, True, id="read of a user whose outcome is unknown"),
        pytest.param(read(12, user=4), Reads.FRESH, False, id="read of a user whose outcome was unknown long ago"),
        pytest.param(read(9, user=1), Reads.FRESH, False, id="read before it"),
        pytest.param(write(12, 13), Reads.NONE, True, id="write"),
        pytest.param(write(18, 19), Reads.NONE, True, id="write on a connection that nobody knew to be dead"),
        pytest.param(write(8, 9), Reads.NONE, False, id="write before it"),
        pytest.param(write(40, 41), Reads.NONE, False, id="write long after it"),
    ],
)
def test_allows_errors_only_while_the_fault_explains_them(failed: Operation, reads: Reads, is_allowed: bool) -> None:
    """A fault from 10 to 15; user 1 has written at 9.5, user 2 long before; writes of 3 and 4 have failed."""
    binding = {1: write(9.2, 9.5), 2: write(1, 2, user=2), 3: write(4, 5, user=3, status=500), 4: write(1, 2, user=4, status=500)}
    assert Allowance(start=10, end=15, reads=reads).allows(failed, [binding[failed.user]]) is is_allowed


def test_writes_may_not_fail_where_no_fault_touches_the_primary() -> None:
    """A run without allowances forbids every error."""
    assert [v.problem for v in result([write(1, 2, "a", status=500)], final()).violations] == [Problem.FORBIDDEN_ERROR]


def test_read_that_has_delivered_rows_may_fail() -> None:
    """It cannot go on elsewhere; one that has delivered none can."""
    after, before = read(1, status=500, error=f"{ROWS_DELIVERED} OperationalError"), read(2, status=500, error="OperationalError")
    assert [violation.operations for violation in result([after, before], final()).forbidden] == [(before,)]


# --- Tasks ---


def ran(token: str, **more: Any) -> TaskRun:
    return TaskRun(**{"token": token, "level": "sticky", "has_found": True, "hosts": ("replica1",), "reasons": ("replica",), **more})


PUBLISHED = [write(1, 2, "a", "a.hook", task="sticky"), write(3, 4, "b", task="delayed")]


def test_finds_tasks_that_miss_their_publishers_write() -> None:
    """Each run counts, also one of a task that has found it before; the write and the run are shown."""
    runs = [ran("a.hook"), ran("a.hook", has_found=False, worker="7"), ran("b", hosts=("default",), reasons=("behind",))]
    (violation,) = missed_by_tasks(PUBLISHED, runs)
    assert violation.problem is Problem.TASK_MISSED
    assert violation.operations == (PUBLISHED[0],)
    assert violation.detail == "sticky task for a.hook at replica1 (replica), worker 7"
    assert result(PUBLISHED, final("a", "a.hook", "b"), runs=runs).violations == [violation]
    assert missed_by_tasks(PUBLISHED, [ran("a.hook"), ran("b")]) == []


def test_task_is_due_when_its_publisher_was_answered() -> None:
    """It looks for what was written last; what a write that failed has published nobody knows."""
    failed = write(5, 6, "c", task="sticky", status=500)
    assert published_tokens([*PUBLISHED, failed, write(7, 8, "d")]) == ["a.hook", "b"]


def test_task_that_never_ran_fails_a_run() -> None:
    """But for one message for each worker that was killed: it may just have been taken out of the broker."""
    fault = Calm()
    judged = result(PUBLISHED, final("a", "a.hook", "b"), fault, runs=[ran("b")])
    assert judged.lost_tasks == ["a.hook"]
    assert "1 tasks were published and never run, not 0 at most: a.hook" in judged.complaints
    fault.lost_messages = 1
    assert not any("never run" in each for each in result(PUBLISHED, final("a", "a.hook", "b"), fault, runs=[ran("b")]).complaints)


def test_replicas_must_answer_their_part_of_the_tasks() -> None:
    """Where the scenario asks for it."""
    runs = [ran("b", hosts=("default",), reasons=("behind",)), *[ran("a.hook")] * 3]
    complaint = "replicas answered 75% of the tasks, not 80% at least"
    assert complaint in result(PUBLISHED, final(), runs=runs, least_on_replicas=0.8).complaints
    assert complaint not in result(PUBLISHED, final(), runs=[*runs, ran("a.hook")], least_on_replicas=0.8).complaints
    assert complaint not in result(PUBLISHED, final(), runs=runs).complaints


def test_control_of_tasks_must_be_caught() -> None:
    """By a task that misses its publisher's write, and by nothing else."""
    missed = result(PUBLISHED, final("a", "a.hook", "b"), runs=[ran("b", has_found=False)], must_find=Problem.TASK_MISSED)
    assert missed.verdict == "caught"
    assert result(PUBLISHED, final("a", "a.hook", "b"), runs=[ran("b")], must_find=Problem.TASK_MISSED).verdict == "NOT CAUGHT"


def test_row_tells_of_the_tasks() -> None:
    """As evidence; and a worker's note is read as what it was."""
    noted = {"token": "b", "level": "delayed", "has_found": True, "hosts": ["replica1"], "reasons": ["replica"], "came_again": True}
    assert result(PUBLISHED, final("a", "a.hook", "b"), runs=[task_run(noted)]).row()[-1] == (
        "seen; 2 tasks ran 1 times, 100% on replicas; 1 runs after they had come again, 0 redelivered;"
        " 0 missed their write, 1 tasks were lost"
    )


# --- What makes a run worthless ---


def test_too_few_bound_reads_fail_a_run() -> None:
    """Only bound reads of users who had written count."""
    reads = [read(3 + number, "a", is_bound=True) for number in range(LEAST_BOUND_READS)]
    history = [write(1, 2, "a"), *reads]
    assert not result(history, final("a")).has_failed
    assert any("only 299 reads were bound" in complaint for complaint in result(history[:-1], final("a")).complaints)
    assert bound_reads(reads) == []
    assert bound_reads([write(1, 2, "a"), read(3, "a")]) == []


def test_fault_that_nobody_saw_fails_a_run() -> None:
    """A fault needs evidence, and all of it."""
    silent = Calm()
    silent.evidence = []
    assert any("do not show the fault" in complaint for complaint in result([], final(), silent).complaints)
    half = Calm()
    half.witness(False, "no conflict")
    assert any("no conflict" in complaint for complaint in result([], final(), half).complaints)


def test_leaks_fail_a_run() -> None:
    """What leaked is a complaint."""
    assert "a connection" in result([], final(), leaks=["a connection"]).complaints


# --- What single faults add ---


def test_frozen_replica_may_not_slow_reads_beyond_measure() -> None:
    """The 99.9th percentile of reads counts, and writes do not."""
    fault = ReplicaFrozen(FAULTS_NEED_NO_WORLD, FAULTS_NEED_NO_WORLD)
    quick = [read(1) for _ in range(1999)]
    slow = [read(1, ended=5.0) for _ in range(3)]
    assert list(fault.complaints([*quick, slow[0], write(1, 9)], final())) == []
    assert len(list(fault.complaints([*quick, *slow], final()))) == 1


def test_frozen_replica_may_not_slow_those_who_come_later() -> None:
    """Once the host is known to be frozen nobody waits for it any more."""
    fault = ReplicaFrozen(FAULTS_NEED_NO_WORLD, FAULTS_NEED_NO_WORLD)
    fault.started, fault.ended = 10.0, 20.0
    assert list(fault.complaints([read(11, ended=13.5), read(14)], final())) == []
    (complaint,) = fault.complaints([read(11, ended=13.5), read(14, ended=15.5)], final())
    assert "that began after the host was known to be frozen" in complaint


def frozen_redis() -> RedisFrozen:
    fault = RedisFrozen(FAULTS_NEED_NO_WORLD)
    fault.started, fault.ended = 10.0, 15.0
    return fault


@pytest.mark.parametrize(
    ("writes", "reads", "is_exempt"),
    [
        pytest.param({}, {}, False, id="the browser that wrote"),
        pytest.param({}, {"device": "browser2"}, True, id="another device"),
        pytest.param({"device": "program1/0"}, {"device": "program1/0"}, True, id="a program has no cookie"),
    ],
)
def test_frozen_redis_exempts_those_who_carry_nothing(writes: dict[str, str], reads: dict[str, str], is_exempt: bool) -> None:
    """While it is frozen; once it answers again everybody is bound."""
    fault = frozen_redis()
    assert fault.exempts(write(11, 12, "a", **writes), read(13, **reads)) is is_exempt
    assert fault.exempts(write(11, 12, "a", **writes), read(17, **reads)) is False
    assert fault.exempts(write(8, 9, "a", **writes), read(13, **reads)) is False


def test_exempt_read_is_no_violation() -> None:
    """The checker asks the fault."""
    history = [write(11, 12, "a"), read(13, device="browser2", value=0)]
    assert len(missed_own_writes(history, final("a"))) == 1
    assert missed_own_writes(history, final("a"), frozen_redis().exempts) == []


def test_frozen_redis_may_cost_a_fifth_of_a_second_per_process_and_second() -> None:
    """What each worker's requests waited beyond the normal is added up."""
    normal = [read(number / 10, ended=number / 10 + 0.01, worker="1") for number in range(90)]
    one = [read(11 + number, ended=11.21 + number, worker="1") for number in range(4)]
    every = [read(11 + number / 10, ended=11.21 + number / 10, worker="2") for number in range(30)]
    assert waiting_per_worker([*normal, *one], 10, 15) == {"1": pytest.approx(0.8)}
    assert list(frozen_redis().complaints([*normal, *one], final())) == []
    (complaint,) = frozen_redis().complaints([*normal, *every], final())
    assert complaint.startswith("requests to worker 2 waited 6.00 s longer")


class Lossy(RepliesLost):
    """Replies that were lost without a proxy, at 1.5."""

    def __init__(self, *messages: bytes) -> None:
        self.evidence, self.unseen, self._messages = [], [], messages

    @property
    def lost(self) -> list[LostReply]:
        return [LostReply(1.5, message) for message in self._messages]


FAILED = write(1, 2, "a", status=500)


def test_lost_reply_keeps_its_user_on_the_primary() -> None:
    """The next reads are on the primary, for as long as the outcome may be open."""
    on_primary, elsewhere, much_later = read(3, hosts=("default",)), read(3), read(60)
    assert list(Lossy(b"COMMIT").complaints([FAILED, on_primary, much_later], final("a"))) == []
    (complaint,) = Lossy(b"COMMIT").complaints([FAILED, elsewhere], final("a"))
    assert "was not answered by the primary" in complaint


def test_lost_reply_excuses_the_write_that_waited_for_it() -> None:
    """Neither a later write, nor a read at any time."""
    failed = [FAILED, write(1.6, 2, "b", status=500), read(1.45, status=500)]
    assert [violation.operations[0] for violation in result(failed, final(), Lossy(b"COMMIT")).forbidden] == failed[1:]


def test_lost_reply_within_a_transaction_binds_nobody() -> None:
    """What was not committed is not there: everybody knows."""
    assert list(Lossy(*RepliesLost.KNOWN_OUTCOME).complaints([FAILED, read(3)], final("a"))) == []


def test_lost_reply_must_be_an_error() -> None:
    """One that was hidden from the client may have been a second try."""
    (complaint,) = Lossy(b"COMMIT", b"COMMIT").complaints([FAILED], final("a"))
    assert "only 1 writes were answered with an error" in complaint


def test_lost_replies_show_in_the_primary() -> None:
    """Some of what failed is there, or what was lost was no reply to a write that was done."""
    fault = Lossy(*[b"COMMIT"] * 5)
    list(fault.complaints([FAILED], final()))
    assert (fault.evidence, fault.unseen) == (["5 replies were lost"], ["0 of 1 failed writes are there"])


@pytest.mark.parametrize(
    ("history", "verdicts"),
    [
        pytest.param([write(1, 2, "a"), read(3, "a")], ("NOT CAUGHT", "NOT CAUGHT"), id="nothing wrong"),
        pytest.param([write(1, 2, "a"), read(3)], ("caught", "NOT CAUGHT"), id="missed"),
        pytest.param([read(1, "a"), read(3)], ("NOT CAUGHT", "caught"), id="went back"),
    ],
)
def test_control_must_be_caught_as_it_was_meant(history: list[Operation], verdicts: tuple[str, str]) -> None:
    """One that hides pointers by missed writes, one that has no memory of reads by reads that go back."""
    problems = (Problem.MISSED_OWN_WRITE, Problem.WENT_BACK)
    results = [result(history, final("a"), must_find=problem) for problem in problems]
    assert tuple(judged.verdict for judged in results) == verdicts


# --- What is told ---


def test_describes_the_shortest_history() -> None:
    """Who did what, when, where and why, in two lines."""
    history = [write(1, 2, "a", number=1, hosts=("default",), reasons=("write",)), read(3, number=2, worker="77")]
    text = "\n".join(result(history, final("a")).describe())
    assert "a read missed the user's own write: misses a" in text
    assert "#2 3.000–3.100 user 1 browser1 client 0 worker 77: read orm at replica1 (replica): saw no tokens" in text


def test_table_has_a_row_for_each_run() -> None:
    """The numbers that the issue's table asks for."""
    history = [write(1, 2, "a"), read(3), read(4, "a", status=500)]
    header, _, row = table([result(history, final("a"))]).splitlines()
    cells = dict(zip(header.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert cells["requests"] == "3"
    assert cells["missed own write"] == "1"
    assert cells["GET errors (allowed / forbidden)"] == "0 / 1"
    assert cells["verdict"] == "FAILED"


def test_history_file_gives_back_what_went_in(tmp_path: Path) -> None:
    """Invocations without a completion are operations that nobody has answered."""
    done, open_ = write(1, 2, "a", number=1), write(3, inf, "b", number=2, status=0)
    with HistoryFile(tmp_path / "history.jsonl") as file:
        file.note(seed=7)
        for begun in (done, open_):
            file.invoke(begun)
        file.complete(done)
    assert read_history(tmp_path / "history.jsonl") == [done, open_]


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (99, 10), (99.9, 10), (10, 1)])
def test_percentile_is_a_value(percent: float, expected: int) -> None:
    """The smallest that so many do not exceed."""
    assert percentile(range(1, 11), percent) == expected
    assert percentile([], percent) == 0


def test_violation_names_its_problem() -> None:
    """Also without details."""
    assert str(Violation(Problem.LOST, ())) == "an acknowledged write is lost"
