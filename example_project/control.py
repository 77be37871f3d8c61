"""The wire between the buttons and the cluster: the start command owns the cluster, the site runs in other processes.

A Unix socket in a folder that only this user may enter; one JSON line there, one back.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from django_pglb.testing import Cluster, Replica

# Reviving a host that was killed takes it through crash recovery, on a busy machine too.
ANSWER_SECONDS = 60.0


class ControlError(Exception):
    """The button could not do what it says; the message is for whoever pressed it."""


def ask(path: str, action: str, alias: str = "") -> dict[str, Any]:
    """Have the owner of the cluster do `action` to a replica; return what it then knows of its hosts. Raises `ControlError`."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWER_SECONDS)
            line.connect(path)
            line.sendall(json.dumps({"action": action, "alias": alias}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(line.makefile("rb").readline())
    except (OSError, ValueError) as error:
        raise ControlError("The start command does not answer any more.") from error
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer


class ReplicaControl:
    """One replica, and what the buttons have done to it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.delay_seconds = 0
        self.is_paused = False

    def do(self, action: str) -> None:
        """Press a button. Raises `KeyError` if there is no such button."""
        buttons = {"delay": self.delay, "pause": self.pause, "resume": self.resume, "kill": self.kill, "revive": self.revive}
        buttons[action]()

    def delay(self, seconds: int = 5) -> None:
        """Replay each commit this long after it was made."""
        self._replica.delay_replay(seconds)
        self.delay_seconds = seconds

    def pause(self) -> None:
        """Stop replaying."""
        self._replica.pause_replay()
        self.is_paused = True

    def resume(self) -> None:
        """Replay at once what comes, as at the start."""
        self.delay(0)
        self._replica.resume_replay()
        self.is_paused = False

    def kill(self) -> None:
        """End the server as a crash would."""
        self._replica.kill()
        # A server that starts again replays; a delay stays in its configuration.
        self.is_paused = False

    def revive(self) -> None:
        """Start the server again, on the data that the crash left."""
        self._replica.start()

    def state(self) -> dict[str, Any]:
        """Return what the buttons have done, for the pages."""
        return {"is_running": self._replica.is_running, "delay_seconds": self.delay_seconds, "is_paused": self.is_paused}


class ControlServer:
    """Answers the buttons of the site, as a context manager; `path` is the socket to ask."""

    def __init__(self, cluster: Cluster) -> None:
        self._replicas = {replica.name: ReplicaControl(replica) for replica in cluster.replicas}
        # Protects the cluster, which is not thread-safe: one button at a time.
        self._lock = threading.Lock()
        # The cluster's folder goes away with the cluster, however that ends.
        folder = cluster.folder / "guestbook"
        folder.mkdir(mode=0o700)
        self.path = str(folder / "control")

    def __enter__(self) -> Self:
        control = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(json.dumps(control.answer(json.loads(self.rfile.readline()))).encode() + b"\n")

        self._server = socketserver.ThreadingUnixStreamServer(self.path, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="guestbook-control", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, question: dict[str, str]) -> dict[str, Any]:
        """Do what is asked; return the state of every replica, or what went wrong."""
        action, alias = question["action"], question["alias"]
        try:
            if action != "state":
                with self._lock:
                    self._replicas[alias].do(action)
        except KeyError:
            return {"error": f"There is no button {action!r} for {alias!r}."}
        except Exception as error:  # noqa: BLE001 - whatever the servers say, the page must show it
            return {"error": f"{alias} would not {action}: {error}"}
        return {name: replica.state() for name, replica in self._replicas.items()}
