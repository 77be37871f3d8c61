"""The local cluster as fixtures: one for the whole run, healed around each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_pglb.testing import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A primary, two replicas and Redis, started when the first test asks. A test that breaks anything takes `healed_cluster`."""
    with Cluster(replicas=2, redis=True) as started:
        yield started


@pytest.fixture
def healed_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster for a test that may break it: everything is well before the test, and is made well after it."""
    cluster.heal()
    yield cluster
    cluster.heal()
