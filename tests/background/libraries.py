"""Django's task framework: as it is in Django 6, and the backport."""

from __future__ import annotations

from importlib.util import find_spec

# The name of a package -> what its names begin with here.
INSTALLED = {package: name for package, name in {"django.tasks": "Django", "django_tasks": "Backport"}.items() if find_spec(package)}

# Both packages read this setting; a backend belongs to one of them.
BACKENDS = {
    "database": {"BACKEND": "django_tasks_db.DatabaseBackend"},
    **{f"{package} immediate": {"BACKEND": f"{package}.backends.immediate.ImmediateBackend"} for package in INSTALLED},
    **{f"{package} dummy": {"BACKEND": f"{package}.backends.dummy.DummyBackend"} for package in INSTALLED},
    **{f"{package} thread": {"BACKEND": f"tests.background.backends.{name}ThreadBackend"} for package, name in INSTALLED.items()},
}
