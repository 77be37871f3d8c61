"""Whom the servers run as: PostgreSQL refuses root, so root's servers run as somebody with no rights at all."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from .errors import ClusterError

# Not `postgres` first: whoever reaches a local cluster's port can run programs as its account,
# and on many machines that account owns real data.
UNPRIVILEGED_ACCOUNTS = ("nobody", "daemon", "postgres")


class Account(NamedTuple):
    """The operating system user and group that a server gets."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Give `path` to this account."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def create_file(self, path: Path) -> None:
        """Make an empty file in a folder of this account's. Never follows a link that the account may have put there."""
        path.unlink(missing_ok=True)
        with path.open("x") as created:
            if os.geteuid() == 0:
                os.fchown(created.fileno(), self.uid, self.gid)

    def can_use(self, path: Path) -> bool:
        """Whether this account may read (a folder: enter, a program: run) `path`. Says no when only a group's right would allow it."""
        path = path.resolve()
        return os.geteuid() != 0 or (self.can_enter(path.parent) and _is_open(path))

    def can_enter(self, folder: Path) -> bool:
        """Whether this account may pass through `folder` and all folders above it."""
        folder = folder.resolve()
        return os.geteuid() != 0 or all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents))


def _is_open(path: Path) -> bool:
    mode = path.stat().st_mode
    # What the owner may run or enter, everybody must be able to run or enter.
    needed = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
    return mode & needed == needed


def server_account() -> Account:
    """Return this process's own account, or an unprivileged one when this process is root."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    for name in UNPRIVILEGED_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ClusterError(f"PostgreSQL does not run as root, and there is none of the users {', '.join(UNPRIVILEGED_ACCOUNTS)} to run it as.")


def make_folder(account: Account) -> Path:
    """Return a new temporary folder that `account` can enter and only this process's user can write to."""
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - mkdtemp chooses an unguessable name
    place = next((place for place in places if Path(place).is_dir() and account.can_enter(Path(place))), places[0])
    folder = Path(tempfile.mkdtemp(prefix="pglb-", dir=place)).resolve()
    folder.chmod(0o711)
    return folder


def copy_tree(source: Path, destination: Path) -> None:
    """Copy `source` so that everybody can read it; what only compilers need stays behind."""
    shutil.copytree(source, destination, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a", "pgxs", "doc", "man"))
    for path in (destination, *destination.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & stat.S_IXUSR else 0o044))
