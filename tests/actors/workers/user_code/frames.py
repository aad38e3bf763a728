"""What users' functions do with frames; the libraries are imported where they are needed."""

from __future__ import annotations

import decimal
import sys
from typing import Any


def imported() -> list[str]:
    return sorted({"pyarrow", "pandas"} & set(sys.modules))


def kind_of(value: Any) -> str:
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}"


def echo(value: Any) -> Any:
    return value


def prices() -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "item": ["tea", None],
            "price": [decimal.Decimal("1.50"), decimal.Decimal("2.25")],
            "count": [3, 4],
            "weight": [0.5, float("nan")],
            "sold": pd.to_datetime(["2026-01-01T10:00:00", "2026-01-02T11:30:00"]),
            "kind": pd.Categorical(["drink", "drink"]),
        }
    )


def indexed_prices() -> Any:
    return prices().set_index("item")


def one_column() -> Any:
    return prices()["count"]


def single_values() -> dict[str, Any]:
    import pandas as pd
    import pyarrow as pa

    return {
        "timestamp": pd.Timestamp("2026-01-02T03:04:05"),
        "not_a_time": pd.NaT,
        "missing": pd.NA,
        "duration": pd.Timedelta(90, "s"),
        "index": pd.Index(["a", "b"]),
        "scalar": pa.scalar(3),
        "array": pa.array([1, None]),
        "batch": pa.RecordBatch.from_pydict({"a": [1, 2]}),
    }


def table(rows: int) -> Any:
    import pyarrow as pa

    return pa.table({"n": list(range(rows)), "text": [str(n) for n in range(rows)]})


def tables(number: int) -> Any:
    for n in range(number):
        yield table(n + 1)


def objects_in_a_column() -> Any:
    import pandas as pd

    return pd.DataFrame({"fine": [1], "odd": [object()]})


def mixed_column() -> Any:
    import pandas as pd

    return pd.DataFrame({"fine": [1, 2], "mixed": [1, "one"]})


def doubled(frame: Any) -> Any:
    """Changes in place what it was given."""
    frame.loc[:, "n"] = frame["n"] * 2
    return frame


def is_a_view(frame: Any) -> bool:
    """Whether the numbers of an Arrow table lie in the message itself, which no Arrow pool has allocated."""
    import pyarrow as pa

    return bool(pa.total_allocated_bytes() < frame.nbytes // 2)


def texts_of(frame: Any) -> list[str]:
    return [str(value) for value in frame.column(0).to_pylist()]


def peak_of_sending(megabytes: int) -> Any:
    """A frame of ten columns of random numbers."""
    import numpy as np
    import pandas as pd

    rows = megabytes * 1_000_000 // 80
    return pd.DataFrame({f"c{n}": np.random.default_rng(n).random(rows) for n in range(10)})


def peak_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - as short as can be
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def size_and_peak(frame: Any) -> list[int]:
    return [len(frame), peak_bytes()]
