"""A private PostgreSQL server for all contestants; prints its URL and serves until its input ends."""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import sys

import gevent

from tests.support.servers.postgres import PostgresServer


def main() -> None:
    """Serve."""
    with PostgresServer() as server:
        print(server.url(), flush=True)
        gevent.get_hub().threadpool.apply(sys.stdin.read)


if __name__ == "__main__":
    main()
