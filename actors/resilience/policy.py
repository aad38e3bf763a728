"""The knobs of resilience as configuration tables: what stands under `retry`, `breaker` and `rate_limit`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from config.schema import Jitter, PositiveDuration, Problem, Table

OnRedisDown = Literal["open", "closed"]


class RetryPolicy(Table, frozen=True, kw_only=True):
    """How a failed try is repeated: only what is safe to repeat, and never beyond the caller's deadline."""

    retries: Annotated[int, Meta(ge=0, le=100)] = 3
    """So many tries follow the first one at most; waiting for the limiter uses up none."""
    base: PositiveDuration = PositiveDuration("100ms")
    """The wait before the first retry; it doubles for each further one. A longer Retry-After replaces it."""
    max: PositiveDuration = PositiveDuration("10s")
    """The longest wait of its own making; a Retry-After may be longer."""
    jitter: Jitter = 0.25
    """The share by which a wait varies at random: 0.25 means from 75 % to 125 %."""

    budget: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.2
    """So many retries for each call, on average over all calls: an outage of the peer is not multiplied by retries. One
    retry a second, and those of three calls in a row, are always allowed."""

    def __post_init__(self) -> None:
        if self.max < self.base:
            raise Problem(f"max ({self.max}) is shorter than base ({self.base})", key="max")


class BreakerPolicy(Table, frozen=True, kw_only=True):
    """When the circuit opens and how it closes again."""

    failures: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """So many failures of the peer within the window open the circuit; with failure_ratio that decides instead."""
    window: PositiveDuration = PositiveDuration("1m")
    """The sliding window in which failures are counted."""
    failure_ratio: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    """Open when this share of the calls in the window failed: for peers with so many calls that some always fail."""
    slow_call: PositiveDuration | None = None
    """A call that takes so long counts as slow, and a slow probe as failed."""
    slow_ratio: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.5
    """With slow_call: open when this share of the calls in the window was slow."""
    min_calls: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    """Shares count from so many calls in the window on."""
    reset_after: PositiveDuration = PositiveDuration("30s")
    """How long an open circuit refuses calls before it lets a probe go; each failed probe doubles it."""
    max_reset_after: PositiveDuration | None = None
    """The longest that failed probes make it; absent: ten times reset_after."""
    probes: Annotated[int, Meta(ge=1, le=1_000)] = 1
    """So many calls at a time may probe a half-open circuit, and as many successes close it."""
    probe_lease: PositiveDuration = PositiveDuration("1m")
    """A probe that is not heard of for so long gives its place back."""
    patience: PositiveDuration = PositiveDuration("5s")
    """A try cut short by its caller's deadline counts as a failure only if the peer had at least so long to answer."""

    def __post_init__(self) -> None:
        if self.max_reset_after is not None and self.max_reset_after < self.reset_after:
            raise Problem(
                f"max_reset_after ({self.max_reset_after}) is shorter than reset_after ({self.reset_after})",
                key="max_reset_after",
            )

    @property
    def counts_every_call(self) -> bool:
        """True when calls that went well matter too, because a share of all calls decides."""
        return self.failure_ratio is not None or self.slow_call is not None

    @property
    def longest_s(self) -> float:
        """The longest time, in seconds, that the circuit stays open by itself."""
        return float(self.reset_after) * 10 if self.max_reset_after is None else float(self.max_reset_after)


class RatePolicy(Table, frozen=True, kw_only=True):
    """How many requests go, and whose word beyond the own limit counts. Clients that wait are served in turns."""

    requests: Annotated[int, Meta(ge=1, le=10_000_000)]
    """So many requests at most in any stretch of time as long as the window; an operation's cost counts as so many."""
    window: PositiveDuration
    """The length of the sliding window, or the time in which token_bucket gives back so many requests."""
    algorithm: Literal["sliding_window", "token_bucket"] = "sliding_window"
    """sliding_window: requests may come as they like within the window. token_bucket: requests / window on average, at
    most burst at once; in the stretch of a window up to burst + requests."""
    burst: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    """With token_bucket: so many requests at most at once; absent: as many as requests. Requests that wait are let go
    every 10 ms, so with less than what comes back in that time the rate is not reached."""
    header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """The response header that says how many requests the peer has left for us, such as X-RateLimit-Remaining; absent:
    the standard fields RateLimit, else RateLimit-Remaining with RateLimit-Reset, where the peer sends them."""
    reset_header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """The one that says when the peer's window ends; absent: `header` with Reset in place of Remaining."""
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """So many calls at most wait for their turn; more are refused with overloaded, those of the client first that has
    most calls waiting."""

    def __post_init__(self) -> None:
        if self.reset_header is not None and self.header is None:
            raise Problem("needs header, which says how many requests are left", key="reset_header")
        if self.burst is not None and self.algorithm != "token_bucket":
            raise Problem('goes with algorithm = "token_bucket" only', key="burst")

    @property
    def bucket(self) -> int | None:
        """How many tokens the bucket holds; None for a sliding window."""
        if self.algorithm != "token_bucket":
            return None
        return self.requests if self.burst is None else self.burst

    @property
    def largest(self) -> int:
        """The most that one call can cost."""
        return self.requests if self.bucket is None else self.bucket
