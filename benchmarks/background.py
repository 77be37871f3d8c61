"""What goes on beside what is measured: a load, a sampler."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Background(ABC):
    """Threads that work from `with` to its end."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=self.work, name=f"{name} {number}") for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def work(self) -> None:
        """Do what one thread does, until `stopping` is set."""
