"""The two paths of the README, executed: a request and a crash, each row in its place."""
