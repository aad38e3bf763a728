"""Everything that a configuration may name under `[integrations.*]`: one file and one line here for each type.

Read `actors.seam` first, then any one file of this folder.
"""

from __future__ import annotations

from actors.integrations import database, graphql, python, rest
from actors.seam import Context, Integration, Plan

INTEGRATIONS: dict[str, Integration] = {
    "database": database.INTEGRATION,
    "graphql": graphql.INTEGRATION,
    "python": python.INTEGRATION,
    "rest": rest.INTEGRATION,
}

__all__ = ["INTEGRATIONS", "Context", "Integration", "Plan"]
