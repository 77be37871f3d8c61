"""How a site tells django-redis to use redis-py's cluster client."""

from __future__ import annotations

from typing import Any

from django_redis.pool import ConnectionFactory
from redis.cluster import RedisCluster


class ClusterFactory(ConnectionFactory):
    """Makes one cluster client per location instead of a client on a pool."""

    clients: dict[str, RedisCluster] = {}  # noqa: RUF012 - shared by design, as django-redis' own pools are

    def connect(self, url: str) -> Any:
        if url not in self.clients:
            self.clients[url] = RedisCluster.from_url(url)
        return self.clients[url]

    def disconnect(self, connection: Any) -> None:
        connection.close()
