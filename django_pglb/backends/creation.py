"""Test databases: a mirror becomes the primary itself."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.postgresql.creation import DatabaseCreation

from .. import runtime

# What says which server a connection goes to, besides NAME, which Django itself copies.
MIRROR_OF = "PGLB_MIRROR_OF"
ADDRESS = ("HOST", "PORT", "USER", "PASSWORD", "OPTIONS")


class MirrorAwareCreation(DatabaseCreation):
    """Makes `TEST = {"MIRROR": …}` need no replica, and closes mirrors before their database is dropped."""

    def create_test_db(self, *args: Any, **options: Any) -> str:
        """Make the database; which replicas will be mirrors is not known before all are made."""
        with runtime.making_test_databases():
            return super().create_test_db(*args, **options)

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        """Point this alias at the primary's test database: Django copies its name only, and would connect to the replica's server."""
        super().set_as_test_mirror(primary_settings_dict)
        settings_dict = self.connection.settings_dict
        settings_dict.update({key: primary_settings_dict[key] for key in ADDRESS})
        _let_go(self.connection)
        # In the settings, which all threads' connections of this alias share.
        settings_dict["TEST"][MIRROR_OF] = settings_dict["TEST"]["MIRROR"]
        runtime.reset()

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
