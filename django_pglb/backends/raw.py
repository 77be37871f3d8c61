"""`cursor.cursor` on a replica's alias: what stands in for psycopg's own until it is known on which host that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from .cursor import RoutedCursor


class RawCursor:
    """Does what psycopg's does, and raises what that raises, on the host where each statement belongs."""

    _routed: RoutedCursor

    def __init__(self, routed: RoutedCursor) -> None:
        vars(self)["_routed"] = routed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._routed, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._routed.pglb_set(name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._routed)

    @property
    def closed(self) -> bool:
        return self._routed.pglb_is_closed

    def close(self) -> None:
        self._routed.close()

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        self._routed.pglb_run(query, params, lambda raw: raw.execute(query, params, **options))
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        every = list(params_seq)
        self._routed.pglb_run(query, every, lambda raw: raw.executemany(query, every, **options))
