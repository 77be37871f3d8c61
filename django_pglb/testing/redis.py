"""A Redis (or Valkey) server that keeps nothing on disk."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from .account import Account
from .binaries import redis_names
from .passwords import PASSWORD, write_private
from .ports import free_port
from .server import Server


class RedisServer(Server):
    """One Redis server on loopback. Whenever it starts it is empty."""

    def __init__(self, *, home: Path, program: Path, account: Account) -> None:
        super().__init__(name="redis", home=home, port=free_port(), programs=redis_names(program), account=account)
        self._program = program
        # Not in its own folder, which is its account's.
        self._settings_path = home.with_suffix(".conf")
        write_private(self._settings_path, f"requirepass {self.password}\n", account)

    @property
    def password(self) -> str:
        """What clients must show."""
        return PASSWORD

    @property
    def url(self) -> str:
        """The address, with the password in it, in the form that redis-py and Django's caches take."""
        return f"redis://:{self.password}@{self.host}:{self.port}/0"

    def stop(self) -> None:
        """Shut the server down; what it held is gone."""
        self._signal_and_wait(signal.SIGTERM)

    def _command(self) -> list[str]:
        nothing_on_disk = ("--save", "", "--appendonly", "no", "--dir", str(self.home))
        return [
            str(self._program),
            str(self._settings_path),
            "--port",
            str(self.port),
            "--bind",
            self.host,
            "--daemonize",
            "no",
            *nothing_on_disk,
        ]

    def _is_ready(self) -> bool:
        self._check_alive()
        try:
            with socket.create_connection((self.host, self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False
