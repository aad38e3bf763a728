"""A paginated answer as a stream: the next page is asked for when the items of the last one are read."""

from __future__ import annotations

from collections import deque
from typing import Any

from actors.http.client import Request, origin
from actors.http.operation import NextPage, Operation, Page, Settings
from regrow.protocol.errors import DecodeError, NotFound, TooLarge, Unavailable, UpstreamError
from runtime.names import whereis
from runtime.origin import client_of
from runtime.promise import ClientPromise, Promise
from runtime.streams import Batch


class Pages:
    """The items of all pages in order; holds one page at most, and nothing runs until it is pulled.

    Each page is a call of its own at the front: with its limiter, breaker, retries and deadline. Pages are followed on
    the integration's own host alone.
    """

    def __init__(self, settings: Settings, operation: Operation, first: Request) -> None:
        self._settings = settings
        self._operation = operation
        self._next: Request | None = first
        self._items: deque[Any] = deque()
        self._pages = 0
        self._closed = False
        self._asked: Promise | None = None

    def __repr__(self) -> str:
        return f"<Pages of {self._settings.doing(self._operation)}, {self._pages} read>"

    def pull(self, most: int, promise: Promise) -> None:
        """Settle `promise` with the next items; the next page is asked for when none are at hand. Never switches."""
        if self._closed:
            promise.reject(NotFound("this stream is closed", started="yes"))
        elif self._items or self._next is None:
            self._give(most, promise)
        else:
            self._ask(most, promise, self._next)

    def close(self) -> None:
        """Let go of the stream and of the page that is on its way. Never switches."""
        self._closed = True
        self._items.clear()
        self._next = None
        if self._asked is not None:
            self._asked.cancel()

    def _give(self, most: int, promise: Promise) -> None:
        items = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        promise.resolve(Batch(items, done=not self._items and self._next is None))

    def _ask(self, most: int, promise: Promise, request: Request) -> None:
        doing = self._settings.doing(self._operation)
        if self._pages >= self._operation.max_pages:
            promise.reject(TooLarge(f"{doing}: more than max_pages ({self._operation.max_pages}) pages", started="yes"))
            return
        front = whereis(self._settings.name)
        if front is None:
            name = self._settings.name
            promise.reject(Unavailable(f"{name} is not running, come back in 1 s", actor=name, retry_after_s=1.0))
            return
        self._asked = asked = ClientPromise(
            client_of(promise),
            deadline=promise.deadline,
            callback=lambda answer: self._arrived(most, promise, request, answer),
        )
        promise.on_abandon = asked.cancel
        front.request(NextPage(self._operation, request), asked)

    def _arrived(self, most: int, promise: Promise, request: Request, answer: Promise) -> None:
        self._asked = None
        promise.on_abandon = None
        if self._closed or promise.done:
            return
        if answer.error is not None:
            promise.reject(answer.error)
            return
        page: Page = answer.value
        self._pages += 1
        try:
            self._next = self._following(page, request)
        except (UpstreamError, DecodeError) as error:
            promise.reject(error)
            return
        self._items.extend(page.items)
        self.pull(most, promise)

    def _following(self, page: Page, request: Request) -> Request | None:
        if page.next_url is None:
            return None
        settings = self._settings
        doing = settings.doing(self._operation)
        try:
            elsewhere = origin(page.next_url) != origin(request.url)
        except ValueError:
            elsewhere = True
        if elsewhere:
            raise UpstreamError(f"{doing}: its next page is on another host, where nothing is sent", retryable=False)
        url = settings.with_credentials(page.next_url)
        if url == request.url:
            raise UpstreamError(f"{doing}: its next page is the same page again", retryable=False)
        return Request(request.method, url, request.headers, request.body)
