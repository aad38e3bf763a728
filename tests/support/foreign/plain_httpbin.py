"""`python plain_httpbin.py PORT`: httpbin; runs in the environment of `make peers`."""

import sys

import httpbin

httpbin.app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
