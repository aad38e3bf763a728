"""What the workers run: functions that take and give pandas DataFrames."""

from __future__ import annotations

import pandas as pd


def totals(sales: pd.DataFrame) -> pd.DataFrame:
    """Return turnover and pieces by region, the largest turnover first."""
    sold = sales.assign(turnover=sales["price"] * sales["pieces"])
    return sold.groupby("region")[["turnover", "pieces"]].sum().sort_values("turnover", ascending=False)
