"""The engine for PostGIS, and that the plain one never loads GDAL. Each in a process of its own: GDAL must not be loaded in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from django_pglb.testing import Cluster
from django_pglb.testing.binaries import find_postgres

ROOT = Path(__file__).parent.parent
SITE = """
    import sys, time
    import django
    from django.conf import settings
    host = {{"ENGINE": "django_pglb.backends.{engine}", "HOST": "127.0.0.1", "USER": "postgres", "NAME": "{name}"}}
    settings.configure(
        SECRET_KEY="x",
        INSTALLED_APPS=["django_pglb"],
        DATABASES={{"default": {{**host, "PORT": {primary}}}, "replica1": {{**host, "PORT": {replica}, "TEST": {{"MIRROR": "default"}}}}}},
        DATABASE_ROUTERS=["django_pglb.routers.ReplicaRouter"],
        PGLB={{"default": {{"REPLICAS": ["replica1"], "CHECK_INTERVAL": 0.1, "STORE": {{"BACKEND": "django_pglb.stores.CookieStore"}}}}}},
    )
    django.setup()
    from django.db import connection, connections
    from django_pglb import connection_for_read, current_decisions, routing_session

    def read(sql):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with routing_session():
                with connection_for_read().cursor() as cursor:
                    cursor.execute(sql)
                    rows = cursor.fetchall()
                [decision] = current_decisions()
            if decision.alias == "replica1" and rows:
                return rows, decision.reason
        raise AssertionError(f"still answered by {{decision}}")
"""


def run_site(cluster: Cluster, engine: str, name: str, code: str) -> None:
    """Run `code` on a site with the primary and the first replica of `cluster`, in a process of its own."""
    site = SITE.format(engine=engine, name=name, primary=cluster.primary.port, replica=cluster.replicas[0].port)
    program = textwrap.dedent(site) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def test_plain_engine_never_imports_gis(cluster: Cluster) -> None:
    """Also when it has connected, written, routed and read."""
    run_site(
        cluster,
        "postgresql",
        "postgres",
        """
        assert read("SELECT 1") == ([(1,)], "replica")
        assert not [name for name in sys.modules if name.startswith("django.contrib.gis")]
        """,
    )


@pytest.fixture
def gis_database(cluster: Cluster) -> str:
    """An empty database on a cluster that has PostGIS."""
    if not find_postgres().has_library("postgis-3"):
        if os.environ.get("PGLB_TEST_POSTGIS") == "required":
            pytest.fail("this run is for PostGIS, and the PostgreSQL that it found has none")
        pytest.skip("this PostgreSQL has no PostGIS")
    cluster.create_database("gis")
    return "gis"


def test_geometries_are_written_to_the_primary_and_read_from_a_replica(cluster: Cluster, gis_database: str) -> None:
    """The engine is Django's PostGIS backend, load balanced: it makes the extension, and geometry comes back from a replica."""
    run_site(
        cluster,
        "postgis",
        gis_database,
        """
        from django.contrib.gis.db import models
        from django.contrib.gis.geos import Point

        class City(models.Model):
            point = models.PointField()

            class Meta:
                app_label = "cities"

        connection.prepare_database()
        with connection.schema_editor() as editor:
            editor.create_model(City)
        City.objects.create(point=Point(8.5, 47.4))
        (rows, reason) = read("SELECT ST_AsText(point) FROM cities_city")
        assert (rows, reason) == ([("POINT(8.5 47.4)",)], "replica"), rows
        with routing_session():
            city = City.objects.get(point__distance_lt=(Point(8.5, 47.4), 1))
            assert (city.point.x, city.point.y) == (8.5, 47.4)
            [decision] = current_decisions()
            assert decision[:2] == ("replica1", "replica"), decision
        """,
    )
