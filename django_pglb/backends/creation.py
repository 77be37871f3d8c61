"""Test databases: a mirror becomes the primary itself."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.postgresql.creation import DatabaseCreation

from .. import runtime
from ..conf import get_usable_config
from ..engine import MIRROR_OF

# What says which server a connection goes to, besides NAME, which Django itself copies.
ADDRESS = ("HOST", "PORT", "USER", "PASSWORD", "OPTIONS")


class MirrorAwareCreation(DatabaseCreation):
    """Makes `TEST = {"MIRROR": …}` need no replica, and closes mirrors before their database is dropped."""

    def create_test_db(self, *args: Any, **options: Any) -> str:
        """Make the database; which replicas will be mirrors is not known before all are made."""
        with runtime.making_test_databases():
            return super().create_test_db(*args, **options)

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        """Point this alias at the primary's test database: Django copies its name only, and would connect to the replica's server.

        Also called for aliases that merely share a database. One of no cluster keeps its own user and options.
        """
        super().set_as_test_mirror(primary_settings_dict)
        home = self._home()
        if home == self.connection.alias:
            return
        settings_dict = self.connection.settings_dict
        settings_dict.update({key: primary_settings_dict[key] for key in ADDRESS})
        _let_go(self.connection)
        # In the settings, which all threads' connections of this alias share.
        settings_dict["TEST"][MIRROR_OF] = settings_dict["TEST"]["MIRROR"] or home
        vars(self.connection).pop("pglb_cursor_class", None)
        runtime.reset()

    def setup_worker_connection(self, _worker_id: int) -> None:
        """Switch to this worker's own database, and its mirrors with it: a worker that was not forked knows nothing of them.

        Django asks each alias that tests of this run use, in any order. The others could reach the replicas themselves.
        """
        home, mirror = connections[self._home()], self.connection
        if home is not mirror and str(home.settings_dict["NAME"]).endswith(f"_{_worker_id}"):
            self.set_as_test_mirror(home.settings_dict)
            return
        super().setup_worker_connection(_worker_id)
        for alias in self._mirrors():
            connections[alias].creation.set_as_test_mirror(mirror.settings_dict)

    def _home(self) -> str:
        """Return the primary of this alias' cluster; the alias itself if it is in none."""
        return get_usable_config().home_of.get(self.connection.alias, self.connection.alias)

    def _mirrors(self) -> list[str]:
        """Return the replicas of this primary that tests are to mirror."""
        primary, home_of = self.connection.alias, get_usable_config().home_of
        mirrored = {alias: connections[alias].settings_dict["TEST"]["MIRROR"] for alias, home in home_of.items() if home == primary}
        return [alias for alias, mirror in mirrored.items() if mirror == primary]

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        for alias in connections:
            mirror = connections[alias]
            if getattr(mirror, "pglb_mirror_of", None) == self.connection.alias:
                _let_go(mirror)
        super()._destroy_test_db(test_database_name, verbosity)  # type: ignore[misc]  # missing in the stubs


def _let_go(connection: Any) -> None:
    """Close what may be open: the connection, and the pool that it came from."""
    connection.close()
    connection.close_pool()
