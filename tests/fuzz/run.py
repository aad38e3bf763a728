"""`python -m tests.fuzz.run CORPUS [libFuzzer options]`: the coverage-guided fuzzer over the wire, by atheris.

It ends with status 0 when its time is up, and with another one, after writing the input to a file, when it finds
anything: an exception, a reckoning that does not come out, more than a second for one input, or memory that grows.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import gc
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["regrow.protocol", "runtime.edge.gateway", "runtime.exports"]):
    from tests.fuzz.wire import Wire

TOKENS = [
    *("RG1", "HELLO", "PING", "ASK", "TELL", "CANCEL", "CREDIT", "DESCRIBE", "SUB", "UNSUB"),
    *('"to":', '"method":', '"codec":', '"deadline_ms":', '"idem":', '"ack":true', '"stream":true', '"credit":'),
    *('"n":', '"topics":', '"since":', '"probe"', '"absent"', '"echo"', '"add"', '"refuse"', '"count"', '"msgpack"'),
]


def main() -> None:
    corpus = Path(sys.argv[1])
    dictionary = corpus.with_suffix(".tokens")
    hex_of = ["".join(f"\\x{byte:02x}" for byte in token.encode()) for token in TOKENS]
    dictionary.write_text("".join(f'"{token}"\n' for token in [*hex_of, "\\xff\\xfe", "\\xff\\xfd"]))
    wire = Wire()
    inputs = 0

    def one_input(data: bytes) -> None:
        nonlocal inputs
        inputs += 1
        wire.run(data)
        if inputs % 10_000 == 0:
            gc.collect()

    atheris.Setup([sys.argv[0], f"-dict={dictionary}", *sys.argv[1:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
