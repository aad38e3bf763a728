"""Writes configuration files into a folder of the test and loads them; what a load changes in the process is undone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, field

from config import secret
from config.errors import ConfigError, ConfigErrors
from config.load import Config, load
from config.schema import DatabaseUrl, Duration, PositiveDuration, Problem, Size, Supervised, Table
from config.secret import Secret


class Retry(Table, frozen=True, kw_only=True):
    retries: Annotated[int, Meta(ge=0, le=10)] = 3
    """Tries after the first one."""
    base: PositiveDuration = PositiveDuration("100ms")
    max: PositiveDuration = PositiveDuration("10s")

    def __post_init__(self) -> None:
        if self.max < self.base:
            raise Problem(f"max ({self.max}) is shorter than base ({self.base})", key="max")


class Auth(Table, frozen=True, kw_only=True):
    bearer: Secret | None = None


class Answer(Table, frozen=True, kw_only=True):
    default: Any


class Operation(Table, frozen=True, kw_only=True):
    request: str
    cache: Duration | None = None


class ServiceConfig(Supervised, frozen=True, kw_only=True):
    """A table with every kind of key that an integration may have."""

    base_url: str
    """Where the service is."""
    auth: Auth | None = None
    headers: dict[str, str] = field(default_factory=dict)
    limit: Size = Size("1MiB")
    ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    enabled: bool = True
    workers: Annotated[int, Meta(ge=1, le=64)] = 2
    retry: Retry = Retry()
    fallback: Literal["cache"] | Answer | None = None
    folders: list[Path] = field(default_factory=list)
    tags: Annotated[list[str], Meta(max_length=3)] = field(default_factory=list)
    store: DatabaseUrl | None = None
    operations: dict[str, Operation] = field(default_factory=dict)


class ServiceType:
    config = ServiceConfig


TYPES = {"service": ServiceType()}

Loads = Callable[..., Config]
Refuses = Callable[..., list[ConfigError]]


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    """Each test begins without secrets, and leaves neither modules nor folders to import from."""
    secret.forget_all()
    modules, folders = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = folders
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    secret.forget_all()


@pytest.fixture
def loads(tmp_path: Path) -> Loads:
    """Loads a text as regrow.toml of a fresh folder, beside other files."""

    def run(
        text: str,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        is_actor: Callable[[object], bool] | None = None,
    ) -> Config:
        for name, content in (files or {}).items():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        file = tmp_path / "regrow.toml"
        file.write_text(text)
        return load(file, TYPES, environ=environ or {}, is_actor=is_actor)

    return run


@pytest.fixture
def refuses(loads: Loads) -> Refuses:
    """The errors of a text that must not load."""

    def run(text: str, environ: Mapping[str, str] | None = None, **more: Any) -> list[ConfigError]:
        with pytest.raises(ConfigErrors) as caught:
            loads(text, environ, **more)
        return caught.value.errors

    return run
