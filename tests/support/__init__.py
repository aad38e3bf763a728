"""The test kit. Fixtures are in `fixtures.py` (loaded by tests/conftest.py), the things they give in the other modules.

The test process is patched by gevent before anything else, so everything here blocks one greenlet only.

Servers: real processes on a loopback port of their own, with their data in a private temporary folder; they end with
pytest, even when it is killed.
    postgres            the session's `PostgresServer`; never stop this one, other tests use it
    postgres_database   a fresh, empty database in it: `.url`, `.connect()` (psycopg, autocommit); dropped afterwards
    postgres_server     a `PostgresServer` of the test's own, for faults: `.url()`, `.create_database()`, `.stop()`,
                        `.stop("immediate")`, `.start()`, `.restart()`, `.kill()`, `.sigstop()`, `.sigcont()`; its port
                        never changes
    redis               the session's `RedisServer`, flushed before and after the test: `.url`, `.connect()`
    redis_server        a `RedisServer` of the test's own, for faults; the same verbs

HTTP peers: in this process, on real sockets.
    http_peer           a scripted HTTP server: `http_peer.reply("GET /users/ada", json={"login": "ada"})`, then
                        `http_peer.url`, `.requests`, `.count("GET /users/ada")`, `.stop()`, `.start()`; see `HttpPeer`
    raw_peer            a TCP listener that speaks no HTTP: `raw_peer.behave(garbage(b"..."))`; see `RawPeer`

Servers of others, in an environment of their own that `make test` makes (`make peers`): httpbin, moto, ariadne,
strawberry, and with a node mountebank, whose imposters misbehave as they are told; see `peers.py`.

The daemon
    daemon              `d = daemon('''[integrations.db]...''')` starts a real `regrow run`, waits until it is ready and
                        gives `.endpoint`, `.http`, `.pid`, `.log`, `.state_dir`, `.run("tree", "--json")`, `.stop()`,
                        `.kill()`; reaped after the test, which fails when it leaves a process behind; see `Daemon`

Leaks: every test fails that leaves a greenlet, a child process, a socket, a name or a timer of the real clock behind;
`@pytest.mark.allow_leaks("socket")` with the reason beside it lets one kind pass. `leaks.register(check)` adds a kind.

Marks are set by the fixtures: `-m "not postgres"` leaves out what needs a PostgreSQL server.
`python -m tests.support.install` finds or installs the server programs; `make test` runs it.
"""
