"""What a forked child does before it goes on: it has its parent's memory, and none of its threads.

Python tells of a fork only if Python made it. A server that embeds it, as uWSGI does, may fork without a word.
So a unit of work, and whatever waits for a thread in vain, compare process ids first. A read does not.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_hooks: list[Callable[[], object]] = []
_pid = os.getpid()
_lock = threading.Lock()  # protects the beginning: of two threads of a child, the second one waits until the first has begun for both


def after_fork(hook: Callable[[], object]) -> None:
    """Have `hook` called once in each forked child, before the child's first unit of work. Hooks are called in this order."""
    _hooks.append(hook)


def begin_anew_if_forked() -> bool:
    """Call the hooks if this is a child in which nobody has called them yet, and say whether it is. Costs one system call."""
    if os.getpid() == _pid:
        return False
    with _lock:
        if os.getpid() != _pid:
            _begin_anew()
    return True


def _begin_anew() -> None:
    global _pid
    for hook in _hooks:
        hook()
    _pid = os.getpid()


def _begin_anew_with_python() -> None:
    global _lock
    _lock = threading.Lock()
    _begin_anew()


os.register_at_fork(after_in_child=_begin_anew_with_python)
