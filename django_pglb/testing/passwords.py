"""The password of every server that this process starts, and how its clients come by it without being told.

1. All that is known to other accounts of the machine is an address: the password is random, and stands in files that only their readers may
   open. It is never an argument of a program, which everybody could list.
2. Clients of PostgreSQL that give no password look it up in a file that the environment names. Children of this process inherit that.
   https://www.postgresql.org/docs/current/libpq-pgpass.html
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from .ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .account import Account

PASSWORD = secrets.token_hex(16)

VARIABLE = "PGPASSFILE"


class PasswordFile:
    """Where this process's PostgreSQL clients find passwords while clusters run. Not thread-safe."""

    def __init__(self) -> None:
        self._ports: dict[Path, tuple[int, ...]] = {}
        self._before: str | None = None

    def include(self, folder: Path, ports: Iterable[int]) -> None:
        """Let clients find the password of the servers on `ports` in a file in `folder`, and any other one where they found it before."""
        if not self._ports:
            self._before = os.environ.get(VARIABLE)
        self._ports[folder] = tuple(ports)
        write_private(_path_in(folder), self._text())
        os.environ[VARIABLE] = str(_path_in(folder))

    def leave_out(self, folder: Path) -> None:
        """Undo `include`, before `folder` is removed; harmless when that was done before."""
        if self._ports.pop(folder, None) is None:
            return
        if self._ports:
            # That of any other cluster has all the lines that are needed.
            os.environ[VARIABLE] = str(_path_in(next(reversed(self._ports))))
        elif self._before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._before

    def _text(self) -> str:
        ports = [str(port) for ports in self._ports.values() for port in ports]
        # Through a proxy a server has another port. Whatever else is on this machine comes before that.
        lines = [*_lines(ports), *_lines_of(self._before), *_lines(["*"])]
        return "".join(f"{line}\n" for line in lines)


def _path_in(folder: Path) -> Path:
    return folder / "passwords"


def _lines(ports: Iterable[str]) -> list[str]:
    return [f"{host}:{port}:*:*:{PASSWORD}" for port in ports for host in (LOOPBACK, "localhost")]


def _lines_of(name: str | None) -> list[str]:
    """Return the lines of the file that clients would look into without us."""
    path = Path(name) if name else Path.home() / ".pgpass"
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Write a file that only its owner may read: this process's user, or `account`. Nobody else may write to the folder that it is in."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:  # noqa: PTH123 - a mode from the start
        if account is not None and os.geteuid() == 0:
            os.fchown(written.fileno(), account.uid, account.gid)
        written.write(text)


password_file = PasswordFile()
