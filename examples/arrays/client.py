"""Sends an array of 100 MB to a Python worker and gets one of the same size back, without pickle and without text.

An array travels as a .npy file inside a msgpack extension; on both ends it is a view of the received bytes.
"""

from __future__ import annotations

import io
import sys
import time

import msgspec
import numpy as np

import regrow

ARRAY_EXT = 1
MEGABYTES = 100


def packed(array: np.ndarray) -> msgspec.msgpack.Ext:
    """Return an array as a worker wants it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return msgspec.msgpack.Ext(ARRAY_EXT, file.getbuffer())


def unpacked(value: msgspec.msgpack.Ext) -> np.ndarray:
    """Return the array that a worker sent."""
    return np.load(io.BytesIO(value.data), allow_pickle=False)


def main(endpoint: str) -> None:
    """Send, receive, check and time."""
    table = np.random.default_rng(1).normal(5.0, 3.0, size=(MEGABYTES * 1_000_000 // 80, 10))
    with regrow.connect(endpoint, timeout=60) as client:
        began = time.perf_counter()
        answer = client.ask(
            "arrays", "call", function="columns:standardize", args=[packed(table)], arrays="ext", codec="msgpack"
        )
        took_s = time.perf_counter() - began
    result = unpacked(answer)
    assert result.shape == table.shape
    assert np.allclose(result.mean(axis=0), 0.0) and np.allclose(result.std(axis=0), 1.0)
    print(f"{table.nbytes / 1e6:.0f} MB there and back in {took_s:.2f} s: columns have mean 0 and deviation 1")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5757")
