"""The one way out to HTTP.

Read `template` (an operation's arguments become a request), `client` (the request goes out and comes back within its
limits), `fields` (what response headers say about limits and time) and `body` (bytes become values); then `operation`,
`front` and `worker`, the actors of a configured API.
"""
