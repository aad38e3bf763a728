"""What keeps a failing dependency from spreading: decisions as pure machines, and the actors around them.

Read `policy` (the knobs), then each pure machine with its actor: `circuit` and `breaker`, `quota` and `limiter`,
`shelf` and `cache` (with `cached`, for one value). `shared` keeps circuits and quotas in Redis for several daemons,
`shared_shelf` answers. `batcher` makes one request of many. `normaliser` turns any failure
into a typed error, `classify` says what that means, `retry` when to try again, `bulkhead` who works and who waits,
`abort` how work stops; `guarded` puts them in the order of a call.
"""
