"""`type = "python"`: allowed functions of Python modules, run in a pool of child processes."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.resilience.breaker import Breaker, CircuitTable
from actors.resilience.limiter import Limiter, QuotaTable
from actors.resilience.policy import BreakerPolicy, RatePolicy
from actors.seam import Context, Integration, Plan
from actors.workers.child import Setup
from actors.workers.functions import AllowList, is_module, is_pattern, pattern_error
from actors.workers.job import Settings
from actors.workers.pool import PythonPool, exports_of_pool
from actors.workers.process import CHILD_PROGRAM, RAY_BRIDGE_PROGRAM, Command, environment
from actors.workers.worker import REAP_S, Worker
from config.schema import Duration, PositiveDuration, Problem, Size, Supervised, Table
from supervisors import ChildSpec

MIN_MEMORY = 64 << 20
MIN_MESSAGE = 1 << 10
MAX_MESSAGE = 1 << 30
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class RateLimit(Table, frozen=True, kw_only=True):
    """How many calls go."""

    requests: Annotated[int, Meta(ge=1, le=10_000_000)]
    """So many calls at most in any stretch of time as long as the window."""
    window: PositiveDuration
    """The length of the sliding window."""
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """So many calls at most wait for their turn; more are refused with overloaded."""


class PythonConfig(Supervised, frozen=True, kw_only=True):
    """A pool of Python worker processes; each runs one call at a time."""

    max_restarts: Annotated[int, Meta(ge=0, le=1_000_000)] = 3
    """So many deaths of workers within max_seconds are healed; one more and the pool's supervisor gives up. At least
    max_workers + quarantine_deaths - 1, so that one function cannot stop the pool: a smaller number counts as that."""
    functions: Annotated[list[str], Meta(min_length=1, max_length=1000)]
    """What may be called: "module:name" one function, "module:*" the public functions that the module itself
    defines."""
    backend: Literal["local", "ray"] = "local"
    """Where the functions run: in processes of this machine, or on a Ray cluster, through one bridge process for each
    worker. On a cluster path is a folder of its nodes, and max_memory does not reach the function."""
    ray_address: str | None = None
    """The cluster's address, "host:port"; needed with backend = "ray"."""
    path: list[Path] = msgspec.field(default_factory=list)
    """Folders that are put in front of the workers' sys.path."""
    python: Path | None = None
    """The interpreter's file, in a virtual environment or elsewhere; 3.11 or newer, with msgspec. Absent: the daemon's
    own."""
    directory: Path | None = None
    """The workers' current folder. Absent: the daemon's."""
    env: Annotated[list[str], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    """The environment variables that workers inherit beside PATH, HOME and LANG."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    """How many processes always run."""
    max_workers: Annotated[int, Meta(ge=1, le=256)] | None = None
    """How many run at most when calls wait. Absent: no more than workers."""
    scale_up_after: PositiveDuration = PositiveDuration("1s")
    """When a call has waited so long for a worker, one more is started."""
    scale_down_after: PositiveDuration = PositiveDuration("1m")
    """A worker beyond the number of workers that had nothing to do for so long is ended."""
    preload: Annotated[list[str], Meta(max_length=100)] = msgspec.field(default_factory=list)
    """Modules imported before the first call; others are imported when they are first called."""
    init: str | None = None
    """A function "module:name" without arguments that runs after preload, to load a model once."""
    teardown: str | None = None
    """A function "module:name" without arguments that runs once in each process at its orderly end (it is replaced, is
    not needed any more, the pool stops), for kill_grace at most; not in one that is killed."""
    health_check: str | None = None
    """A function "module:name" without arguments that is called in each process before its first call, and again in
    each idle one every check_interval; a process where it raises, returns false or a text that says why, or takes
    longer than check_timeout is replaced. Absent: a process is healthy when it could start."""
    check_interval: PositiveDuration = PositiveDuration("30s")
    """How often idle processes are asked for their health."""
    check_timeout: PositiveDuration = PositiveDuration("5s")
    """How long a health check may take."""
    timeout: PositiveDuration = PositiveDuration("10m")
    """The default deadline of a call. A call that is not over at its deadline is ended with its process."""
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """How many calls may wait for a worker; more are refused with overloaded."""
    queue_size: Size = Size("256MiB")
    """How many bytes of arguments may wait for a worker; more are refused with overloaded."""
    rate_limit: RateLimit | None = None
    """How many calls may begin in any window of time. Absent: as many as there are workers for."""
    breaker: BreakerPolicy | None = None
    """When a pool whose calls keep losing their process stops trying for a while, whatever the function; errors that
    functions raise do not count. Absent: each function is watched for itself, see quarantine_deaths."""
    max_message: Size = Size("8MiB")
    """The largest arguments and the largest result of one call; larger ones are refused with too_large."""
    max_memory: Size | None = Size("1GiB")
    """The resident memory of one process and what it started. A call that goes over it ends with MemoryError."""
    limit_address_space: bool = True
    """Limits the address space of a process to max_memory as well, so that most calls that ask for too much get their
    MemoryError in time. Turn it off for libraries that reserve far more memory than they use."""
    max_calls: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = 10_000
    """A process is replaced after so many calls."""
    max_age: PositiveDuration | None = None
    """A process is replaced at about this age (10 % more or less), once the call in hand is over. Absent: never."""
    start_timeout: PositiveDuration = PositiveDuration("2m")
    """How long preload and init may take together."""
    kill_grace: Duration = Duration("1s")
    """How long a process that is ended by SIGTERM has before SIGKILL."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    """How far the processes stand back when the processors are busy."""
    quarantine_deaths: Annotated[int, Meta(ge=1, le=1000)] = 3
    """A function whose calls ended so many processes within quarantine_within is refused for quarantine_for."""
    quarantine_within: PositiveDuration = PositiveDuration("1m")
    """The window in which such deaths are counted."""
    quarantine_for: PositiveDuration = PositiveDuration("5m")
    """How long such a function is refused, unless the method `release` lets it go earlier."""

    def __post_init__(self) -> None:
        problems = [
            Problem(pattern_error(pattern), key=f"functions[{index}]")
            for index, pattern in enumerate(self.functions)
            if not is_pattern(pattern)
        ]
        problems += [
            Problem(f"{module!r} is no name of a module", key=f"preload[{index}]")
            for index, module in enumerate(self.preload)
            if not is_module(module)
        ]
        problems += [
            Problem(f"{name!r} is no name of an environment variable", key=f"env[{index}]")
            for index, name in enumerate(self.env)
            if not _VARIABLE.fullmatch(name)
        ]
        for key in ("init", "teardown", "health_check"):
            function = getattr(self, key)
            if function is not None and (not is_pattern(function) or function.endswith("*")):
                problems.append(Problem(f'{function!r} is not "module:name"', key=key))
            if function is not None and key != "init" and self.backend == "ray":
                problems.append(Problem(f"{key} works only in processes of this machine, not on Ray", key=key))
        if self.teardown is not None and not self.kill_grace:
            problems.append(Problem("teardown needs the time that kill_grace (0) does not give", key="kill_grace"))
        if self.max_memory is not None and self.max_memory < MIN_MEMORY:
            problems.append(
                Problem(f"max_memory ({self.max_memory}) is smaller than {MIN_MEMORY >> 20}MiB", key="max_memory")
            )
        if not MIN_MESSAGE <= self.max_message <= MAX_MESSAGE:
            problems.append(Problem(f"max_message ({self.max_message}) is not from 1KiB to 1GiB", key="max_message"))
        if self.queue_size < self.max_message:
            problems.append(
                Problem(
                    f"queue_size ({self.queue_size}) is smaller than max_message ({self.max_message})", key="queue_size"
                )
            )
        if self.max_workers is not None and self.max_workers < self.workers:
            problems.append(
                Problem(f"max_workers ({self.max_workers}) is less than workers ({self.workers})", key="max_workers")
            )
        if self.backend == "ray" and self.ray_address is None:
            problems.append(Problem('backend = "ray" needs the address of the cluster', key="ray_address"))
        if self.backend == "ray" and self.python is None and importlib.util.find_spec("ray") is None:
            problems.append(Problem("the package ray is not installed: pip install 'regrow[ray]'", key="backend"))
        problems += _missing(self)
        if problems:
            raise ExceptionGroup("python", problems)
        # As many as can die by one function before it is quarantined: all at once, or one after the other.
        fewest = (self.max_workers or self.workers) + self.quarantine_deaths - 1
        if self.max_restarts < fewest:
            msgspec.structs.force_setattr(self, "max_restarts", fewest)


def _missing(config: PythonConfig) -> list[Problem]:
    """Return what the configuration names and the machine does not have. Never switches."""
    problems = [
        Problem(f"there is no folder {folder}", key=f"path[{index}]")
        for index, folder in enumerate(config.path)
        if config.backend == "local" and not folder.is_dir()
    ]
    if config.directory is not None and not config.directory.is_dir():
        problems.append(Problem(f"there is no folder {config.directory}", key="directory"))
    if config.python is not None and not (config.python.is_file() and os.access(config.python, os.X_OK)):
        elsewhere = shutil.which(config.python.name)
        hint = f"; {config.python.name} on PATH is {elsewhere}" if elsewhere else ""
        problems.append(Problem(f"{config.python} is no program that can be run{hint}", key="python"))
    return problems


def settings_of(name: str, config: PythonConfig) -> Settings:
    """Return what the pool and its workers go by. Never switches."""
    is_local = config.backend == "local"
    # Ray reserves far more address space than any limit of a call would leave it.
    limit = config.max_memory if config.limit_address_space and is_local else None
    variables = environment(config.env)
    if config.ray_address is not None:
        variables["RAY_ADDRESS"] = config.ray_address
    return Settings(
        pool=name,
        command=Command(
            str(config.python or sys.executable), variables, CHILD_PROGRAM if is_local else RAY_BRIDGE_PROGRAM
        ),
        setup=Setup(
            directory=None if config.directory is None else str(config.directory),
            path=[str(folder) for folder in config.path],
            functions=list(config.functions),
            preload=list(config.preload),
            init=config.init,
            max_message=int(config.max_message),
            address_space=None if limit is None else int(limit),
            nice=config.nice,
            teardown=config.teardown,
            health_check=config.health_check,
        ),
        workers=config.workers,
        max_workers=config.max_workers or config.workers,
        scale_up_after_s=float(config.scale_up_after),
        scale_down_after_s=float(config.scale_down_after),
        timeout_s=float(config.timeout),
        queue_calls=config.queue,
        queue_bytes=int(config.queue_size),
        max_message=int(config.max_message),
        max_memory=None if config.max_memory is None else int(config.max_memory),
        max_calls=config.max_calls,
        max_age_s=None if config.max_age is None else float(config.max_age),
        start_timeout_s=float(config.start_timeout),
        kill_grace_s=float(config.kill_grace),
        quarantine_deaths=config.quarantine_deaths,
        quarantine_within_s=float(config.quarantine_within),
        quarantine_for_s=float(config.quarantine_for),
        limiter=None if config.rate_limit is None else f"{name}/limiter",
        breaker=None if config.breaker is None else f"{name}/breaker",
        check_interval_s=float(config.check_interval),
        check_timeout_s=float(config.check_timeout),
        patience_s=0.0 if config.breaker is None else float(config.breaker.patience),
    )


def plan(name: str, config: Any, _context: Context) -> Plan:
    """Plan the pool's part of the tree: its guards, its workers, then the front under its own name. Never switches."""
    settings = settings_of(name, config)
    guards = []
    if config.rate_limit is not None:
        rate = config.rate_limit
        policy = RatePolicy(requests=rate.requests, window=rate.window, queue=rate.queue)
        guards.append(ChildSpec(id="limiter", start=Limiter, args=(name, policy, QuotaTable()), name=f"{name}/limiter"))
    if config.breaker is not None:
        guards.append(
            ChildSpec(id="breaker", start=Breaker, args=(name, config.breaker, CircuitTable()), name=f"{name}/breaker")
        )
    workers = [
        ChildSpec(
            id=f"worker-{index}",
            start=Worker,
            kwargs={"settings": settings, "index": index},
            name=settings.worker_name(index),
            shutdown=settings.kill_grace_s + REAP_S + 1.0,
        )
        for index in range(1, settings.max_workers + 1)
    ]
    front = ChildSpec(id="front", start=PythonPool, kwargs={"settings": settings}, name=name)
    return Plan([*guards, *workers, front], exports_of_pool(AllowList(config.functions)), settings.timeout_s)


INTEGRATION = Integration("python", PythonConfig, plan)
