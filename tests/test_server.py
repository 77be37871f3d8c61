"""The PostgreSQL that the tests run on."""

from __future__ import annotations

import os

import psycopg
import pytest

from django_pglb.testing import Cluster


@pytest.mark.skipif("PGLB_TEST_POSTGRES" not in os.environ, reason="no version of PostgreSQL was asked for")
def test_server_is_the_version_that_was_asked_for(cluster: Cluster) -> None:
    """A run for an old PostgreSQL must not quietly test the new one of the wheel."""
    with psycopg.connect(host="127.0.0.1", port=cluster.primary.port, user="postgres", dbname="postgres") as connection:
        assert connection.info.server_version // 10000 == int(os.environ["PGLB_TEST_POSTGRES"])
