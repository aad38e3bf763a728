"""A first actor: it keeps a count between messages, and a crash gives it back to its supervisor with a fresh one."""

from __future__ import annotations

from regrow import Actor, InvalidArguments, exported


class Greeter(Actor):
    """Greets people, and counts how many it has greeted since it was started."""

    def __init__(self, greeting: str = "Hello") -> None:
        super().__init__()
        self.greeting = greeting
        self.greeted = 0

    @exported
    def greet(self, name: str, times: int = 1) -> str:
        """Greets somebody, once or several times."""
        if not 1 <= times <= 100:
            raise InvalidArguments(f"times is {times}, expected 1 to 100")
        self.greeted += 1
        return " ".join([f"{self.greeting}, {name}!"] * times)

    @exported
    def count(self) -> int:
        """How many greetings were asked for since this actor was started."""
        return self.greeted

    @exported
    def crash(self) -> None:
        """Crashes on purpose: the caller is told, the supervisor starts a new Greeter, its count begins at 0."""
        raise RuntimeError("crashed on purpose")
