"""Engines that tell each session whose rows it may see, below ours and above it, as projects write them."""

from __future__ import annotations

from contextvars import ContextVar
from importlib.util import find_spec, module_from_spec
from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper as Djangos
from django.db.backends.utils import CursorWrapper
from django.test import override_settings
from django.utils.functional import SimpleLazyObject

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


# --- Engines that are told on the primary's connection, in ways of their own ---


class ByDict(LoadBalancedMixin, Djangos):
    """Keeps what it is told in one dictionary, and a flag of what is still to be said."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context: dict[str, str] = {"whose": "nobody"}
        self.has_news = True

    def set_tenant(self, whose: str) -> None:
        self.context["whose"] = whose
        self.has_news = True

    def close(self) -> None:
        self.has_news = True
        super().close()

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        if self.has_news:
            self.connection.execute(TELL, [self.context["whose"]])
            self.has_news = False
        return cursor


class Account:
    """Whose rows a connection shows."""

    def __init__(self, name: str) -> None:
        self.name = name


class ByObject(ByDict):
    """Keeps it in an object, and forgets what it has said when that is renamed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.account = Account("nobody")

    def set_tenant(self, whose: str) -> None:
        super().set_tenant(whose)
        self.account.name = whose

    def _cursor(self, name: str | None = None) -> Any:
        self.context["whose"] = self.account.name
        return super()._cursor(name)


class ByDefault(LoadBalancedMixin, Djangos):
    """Is nobody's until it is told, and finds that out late."""

    whose: str | None = None
    said: str | None = None

    def set_tenant(self, whose: str) -> None:
        self.whose = whose

    def close(self) -> None:
        self.said = None
        super().close()

    def _cursor(self, name: str | None = None) -> Any:
        if self.whose is None:
            self.whose = "nobody"
        cursor = super()._cursor(name)
        if self.said != self.whose:
            self.connection.execute(TELL, [self.whose])
            self.said = self.whose
        return cursor


class ByMethods(LoadBalancedMixin, Djangos):
    """Leaves the telling to others, who leave it to others."""

    def set_tenant(self, whose: str) -> None:
        Teller.put(self, whose)

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        Teller(self).tell()
        return cursor


def wake() -> Any:
    raise RuntimeError("it must not be looked at")


unready = SimpleLazyObject(wake)


class Teller:
    asleep = unready

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper

    @staticmethod
    def put(wrapper: Any, whose: str) -> None:
        wrapper.whose_rows = whose

    def tell(self) -> None:
        self.wrapper.connection.execute(TELL, [found(self.wrapper)])


def found(wrapper: Any) -> str:
    if wrapper is None:
        return str(unready)
    return str(getattr(wrapper, "whose_rows", "nobody"))


class Attribute(Ours):
    """What those below have in common."""

    whose = "nobody"

    def set_tenant(self, whose: str) -> None:
        self.whose = whose


class ByEnsureConnection(Attribute):
    """Tells whenever Django makes sure of the connection, as it does for each cursor."""

    _is_connecting = False

    def connect(self) -> None:
        self._is_connecting = True
        super().connect()
        self._is_connecting = False

    def ensure_connection(self) -> None:
        super().ensure_connection()
        if not self._is_connecting:
            self.connection.execute(TELL, [self.whose])


class ByParameters(Attribute):
    """Tells by the startup options, and connects anew when it is told."""

    def set_tenant(self, whose: str) -> None:
        super().set_tenant(whose)
        self.close()

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        return {**params, "options": f"{params.get('options', '')} -c app.tenant={self.whose}"}


class ByPart(LoadBalancedMixin, Djangos):
    """Has an object for that, which knows its connection and what it has told it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.part = Part(self)

    def set_tenant(self, whose: str) -> None:
        self.part.whose = whose

    def close(self) -> None:
        self.part.said = None
        super().close()

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        self.part.tell()
        return cursor


class Part:
    def __init__(self, wrapper: Any) -> None:
        self.wrapper, self.whose = wrapper, "nobody"
        self.said: str | None = None

    def tell(self) -> None:
        if self.said != self.whose:
            self.wrapper.connection.execute(TELL, [self.whose])
            self.said = self.whose


class ByCreatedCursor(Attribute):
    """Tells with each raw cursor."""

    def create_cursor(self, name: str | None = None) -> Any:
        self.connection.execute(TELL, [self.whose])
        return super().create_cursor(name)


class ByStatement(Attribute):
    """Returns a cursor of its own, which remembers on the wrapper what it has told."""

    said: str | None = None

    def close(self) -> None:
        self.said = None
        super().close()

    def _cursor(self, name: str | None = None) -> Any:
        return RememberingCursor(super()._cursor(name).cursor, self)


class RememberingCursor(CursorWrapper):
    def execute(self, sql: Any, params: Any = None) -> Any:
        wrapper: Any = self.db
        if wrapper.said != wrapper.whose:
            wrapper.connection.execute(TELL, [wrapper.whose])
            wrapper.said = wrapper.whose
        return super().execute(sql, params)


class ByProperty(LoadBalancedMixin, Djangos):
    """Is told by a property, and forgets with it what it has said."""

    _whose = "nobody"
    _said = ""

    @property
    def whose(self) -> str:
        return self._whose

    @whose.setter
    def whose(self, whose: str) -> None:
        self._whose, self._said = whose, ""

    def set_tenant(self, whose: str) -> None:
        self.whose = whose

    def close(self) -> None:
        self._said = ""
        super().close()

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)
        if not self._said:
            self.connection.execute(TELL, [self.whose])
            self._said = self.whose
        return cursor
