"""Hosts with several addresses, some of which never answer."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from django_pglb.core.topology import HostState
from django_pglb.health.addresses import Address, beginning_with, listed
from django_pglb.health.loop import ProbeLoop
from django_pglb.health.target import target_from_params
from django_pglb.testing import PLAIN_ROLE, Cluster, wait_until

from .aids import PRIMARY, checking, deaf_port, hanging_resolver, host_of, target_at, target_of, wait_for_states, wait_until_online

# All of it is this machine, and PostgreSQL listens on 127.0.0.1 only.
BLACK_HOLE = "127.0.0.9"


@pytest.mark.parametrize(
    ("params", "addresses"),
    [
        ({}, [("", "", "")]),
        ({"host": "a"}, [("a", "", "")]),
        ({"host": "a,b", "port": "1"}, [("a", "", "1"), ("b", "", "1")]),
        ({"host": "a,b", "port": "1,2"}, [("a", "", "1"), ("b", "", "2")]),
        ({"host": "a", "hostaddr": "10.0.0.1", "port": "1"}, [("a", "10.0.0.1", "1")]),
        ({"hostaddr": "10.0.0.1,::1"}, [("", "10.0.0.1", ""), ("", "::1", "")]),
        ({"host": "/run/postgresql"}, [("/run/postgresql", "", "")]),
    ],
)
def test_list_of_addresses(params: dict[str, str], addresses: list[tuple[str, str, str]]) -> None:
    """As libpq reads it: one port may serve all hosts."""
    assert listed(params) == [Address(*address) for address in addresses]


def test_every_address_has_its_turn() -> None:
    """Names with several addresses among them; one that does not resolve in time keeps its place, unresolved."""

    def resolve(host: str, *arguments: Any) -> list[Any]:
        if host == "two":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("10.0.0.1", "10.0.0.2")]
        return hang(host, *arguments)

    with hanging_resolver() as hang, asyncio.Runner(loop_factory=lambda: ProbeLoop(resolve)) as runner:
        params = {"host": "two,hang,10.0.0.3", "port": "1,2,3", "user": "x"}
        turns = [runner.run(beginning_with(turn, params, 0.2)) for turn in range(5)]
    assert turns[0] == {"host": "two,two,hang,10.0.0.3", "hostaddr": "10.0.0.1,10.0.0.2,,", "port": "1,1,2,3", "user": "x"}
    assert turns[1] == {"host": "two,hang,10.0.0.3,two", "hostaddr": "10.0.0.2,,,10.0.0.1", "port": "1,2,3,1", "user": "x"}
    assert turns[4] == turns[0]


def test_replica_behind_a_black_hole_comes_online(healed_cluster: Cluster) -> None:
    """Whether its hosts are listed, or its name has several addresses."""
    replica = healed_cluster.replicas[0]

    def resolve(host: str, *arguments: Any) -> list[Any]:
        if host == "two":
            return [answer for address in (BLACK_HOLE, replica.host) for answer in socket.getaddrinfo(address, *arguments)]
        return socket.getaddrinfo(host, *arguments)

    with deaf_port(BLACK_HOLE, replica.port):
        targets = [
            target_of(healed_cluster.primary),
            target_at("by_list", f"{BLACK_HOLE},{replica.host}", replica.port, dbname="postgres", user=PLAIN_ROLE),
            target_at("by_name", "two", replica.port, dbname="postgres", user=PLAIN_ROLE, password=replica.password),
        ]
        with checking(targets, resolve=resolve, check_timeout=1) as checker:
            wait_until_online(checker)


def test_checker_follows_the_one_that_takes_writes(healed_cluster: Cluster) -> None:
    """The first is frozen: the primary's alias goes to whoever is promoted, whose own alias is then the primary itself."""
    healed_cluster.create_role("monitor", monitor=True)
    healed_cluster.wait_until_replicas_caught_up()
    primary, (first, second) = healed_cluster.primary, healed_cluster.replicas
    params = {
        "host": f"{primary.host},{first.host}",
        "port": f"{primary.port},{first.port}",
        "dbname": "postgres",
        "user": "monitor",
        "target_session_attrs": "read-write",
    }
    either = target_from_params(PRIMARY, params, is_primary=True)
    with checking([either, target_of(first, user="monitor"), target_of(second, user="monitor")], check_timeout=2) as checker:
        wait_until_online(checker)
        primary.freeze()
        wait_for_states(checker, primary=HostState.OFFLINE)
        first.promote()
        second.follow(first)
        wait_for_states(checker, primary=HostState.ONLINE, replica1=HostState.OFFLINE, replica2=HostState.ONLINE)
        assert host_of(checker, PRIMARY).timeline == 2
        assert host_of(checker, "replica1").why == "is the primary itself, and no replica of it"
        first.ask("SELECT pg_logical_emit_message(true, 'test', 'x')")
        wanted = first.write_lsn
        wait_until(lambda: (host_of(checker, "replica2").replay_lsn or 0) >= wanted, timeout=60, what="the new primary's replica to follow")
        assert host_of(checker, "replica2").is_online
