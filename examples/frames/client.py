"""Sends a data frame to a Python worker and gets another one back, without pickle and without text.

A frame travels as an Arrow IPC stream inside a msgpack extension, which every language with an Arrow library can read.
"""

from __future__ import annotations

import sys

import msgspec
import pandas as pd
import pyarrow as pa

import regrow

FRAME_EXT = 2


def packed(frame: pd.DataFrame) -> msgspec.msgpack.Ext:
    """Return a frame as a worker wants it."""
    table = pa.Table.from_pandas(frame)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return msgspec.msgpack.Ext(FRAME_EXT, memoryview(sink.getvalue()))


def unpacked(value: msgspec.msgpack.Ext) -> pd.DataFrame:
    """Return the frame that a worker sent."""
    return pa.ipc.open_stream(value.data).read_all().to_pandas()


def main(endpoint: str) -> None:
    """Ask twice: for a frame, and for the same as plain rows."""
    sales = pd.DataFrame(
        {"region": ["north", "south", "north"], "price": [2.5, 10.0, 4.0], "pieces": pd.array([4, 3, 2], "Int64")}
    )
    with regrow.connect(endpoint, timeout=60) as client:
        answer = client.ask(
            "sales", "call", function="sales:totals", args=[packed(sales)], arrays="ext", codec="msgpack"
        )
        rows = client.ask("sales", "call", function="sales:totals", args=[packed(sales)], codec="msgpack")
    totals = unpacked(answer)
    assert totals.loc["north", "turnover"] == 18.0
    assert rows[0] == {"region": "south", "turnover": 30.0, "pieces": 3}
    print(totals)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5757")
