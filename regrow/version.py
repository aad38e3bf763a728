"""The version, in one place; `pyproject.toml` and this file are changed together, which a test checks."""

from __future__ import annotations

VERSION = "0.1.0"
