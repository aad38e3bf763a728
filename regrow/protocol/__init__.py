"""The wire protocol: a leaf that imports nothing else of ours, so that every layer and every client may import it.

Read `errors` (the typed errors), `codec` (bodies), then `frames` (ops, headers, limits, decoding, encoding).
"""
