"""Engines that tell each session whose rows it may see, below ours and above it, as projects write them."""

from __future__ import annotations

from contextvars import ContextVar
from importlib.util import find_spec, module_from_spec
from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper as Djangos
from django.db.backends.utils import CursorWrapper
from django.test import override_settings

from django_pglb.backends.mixin import LoadBalancedMixin
from django_pglb.backends.postgresql.base import DatabaseWrapper as Ours

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
TELL = "SELECT set_config('app.tenant', %s, false)"


class TellingMixin:
    """What such engines have in common: twelve lines."""

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)  # type: ignore[misc]
        telling = cursor if name is None else self.connection.cursor()  # type: ignore[attr-defined]
        telling.execute(TELL, [tenant.get()])
        return cursor


class Telling(TellingMixin, Djangos):
    """An engine of its own."""


class Below(LoadBalancedMixin, Telling):
    """As the hint of the check says."""


class Between(TellingMixin, LoadBalancedMixin, Djangos):
    """The other way round."""


class Above(TellingMixin, Ours):
    """Layered on ours."""


class OwnMethod(Ours):
    """Layered on ours, in the class itself."""

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        with self.connection.cursor() as telling:
            telling.execute(TELL, [tenant.get()])
        return cursor


class Heir(OwnMethod):
    """Whoever extends such an engine."""


class ByCursor(LoadBalancedMixin, Djangos):
    """Overrides what callers use."""

    def cursor(self) -> Any:
        cursor = super().cursor()
        cursor.execute(TELL, [tenant.get()])
        return cursor

    def chunked_cursor(self) -> Any:
        cursor = super().chunked_cursor()
        self.connection.execute(TELL, [tenant.get()])
        return cursor


class ByItsOwnCursor(Ours):
    """Asks itself for the cursor that it tells by, and guards itself."""

    _tells = False

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        if not self._tells:
            self._tells = True
            try:
                with self.cursor() as telling:
                    telling.execute(TELL, [tenant.get()])
            finally:
                self._tells = False
        return cursor


class ByWrapper(LoadBalancedMixin, Djangos):
    """Returns a cursor of its own, which tells before each statement."""

    def _cursor(self, name: str | None = None) -> Any:
        return TellingCursor(super()._cursor(name).cursor, self)


class TellingCursor(CursorWrapper):
    def execute(self, sql: Any, params: Any = None) -> Any:
        self.db.connection.execute(TELL, [tenant.get()])
        return super().execute(sql, params)


class ByAttribute(LoadBalancedMixin, Djangos):
    """Is told on the primary's connection, as django-tenants is, and remembers what it has told the session."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: str | None = None
        self.whose = "nobody"

    def set_tenant(self, whose: str) -> None:
        self.whose, self.told = whose, None

    def close(self) -> None:
        self.told = None
        super().close()

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        if self.told is None:
            self.connection.execute(TELL, [self.whose])
            self.told = self.whose
        return cursor


class ByHelper(LoadBalancedMixin, Djangos):
    """Is told an attribute that its own code does not name."""

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        tell(self)
        return cursor


def tell(connection: Any) -> None:
    connection.connection.execute(TELL, [getattr(connection, "whose", "nobody")])


class ByConnect(Ours):
    """Tells each new connection something, after Django has made it."""

    def connect(self) -> None:
        super().connect()
        with self.cursor() as cursor:
            cursor.execute(TELL, ["connected"])


class ByState(LoadBalancedMixin, Djangos):
    """Tells each new connection something, while Django makes it."""

    def init_connection_state(self) -> None:
        super().init_connection_state()
        with self.cursor() as cursor:
            cursor.execute(TELL, ["connected"])


class ByNewConnection(Ours):
    """Tells each new connection something, before Django has it."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        connection.execute(TELL, ["connected"])
        connection.commit()
        return connection


class ByCreateCursor(Ours):
    """Tells with each raw cursor."""

    def create_cursor(self, name: str | None = None) -> Any:
        self.connection.execute(TELL, [tenant.get()])
        return super().create_cursor(name)


class WrongOrder(Djangos, LoadBalancedMixin):
    """Ours behind Django's: nothing of it is ever called."""


def tenants_below() -> Any:
    """The engine of django-tenants, with ours around it."""
    from django_tenants.postgresql_backend.base import DatabaseWrapper

    return type("DatabaseWrapper", (LoadBalancedMixin, DatabaseWrapper), {"__module__": __name__})


def tenants_above() -> Any:
    """The same engine as `ORIGINAL_BACKEND` layers it on ours; it is read when the module is."""
    spec = find_spec("django_tenants.postgresql_backend.base")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with override_settings(ORIGINAL_BACKEND="django_pglb.backends.postgresql"):
        spec.loader.exec_module(module)
    return module.DatabaseWrapper
