"""The user's actor classes: imported while the configuration is checked, their arguments fitted to `__init__`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from config.secret import Secret, redact
from tests.config.conftest import Loads, Refuses


def actor(spec: str, args: str = "{}", daemon: str = "") -> str:
    return f"{daemon}\n[actors.a]\nclass = '{spec}'\nargs = {args}\n"


def test_the_class_is_handed_over(loads: Loads) -> None:
    config = loads(actor("shop.orders:Orders"), files={"shop/__init__.py": "", "shop/orders.py": "class Orders: ..."})
    assert config.classes["a"].__qualname__ == "Orders"
    assert config.classes["a"] is sys.modules["shop.orders"].Orders


def test_a_class_inside_a_class_can_be_named(loads: Loads) -> None:
    config = loads(actor("orders_module:Outer.Inner"), files={"orders_module.py": "class Outer:\n    class Inner: ..."})
    assert config.classes["a"].__qualname__ == "Outer.Inner"


def test_folders_are_searched_in_their_order(loads: Loads) -> None:
    files = {"one/dup_module.py": "class A:\n    place = 1", "two/dup_module.py": "class A:\n    place = 2"}
    config = loads(actor("dup_module:A", daemon="[daemon]\npath = ['two', 'one']"), files=files)
    assert config.classes["a"].place == 2  # type: ignore[attr-defined]


def test_the_folders_stay_importable_once_a_configuration_is_good(loads: Loads, tmp_path: Path) -> None:
    loads("[daemon]\npath = ['src']", files={"src/x.py": ""})
    assert sys.path[-1] == str(tmp_path / "src")
    loads("[daemon]\npath = ['src']")
    assert sys.path.count(str(tmp_path / "src")) == 1


def test_a_refused_configuration_leaves_the_import_path_alone(refuses: Refuses) -> None:
    before = list(sys.path)
    refuses("[daemon]\npath = ['src']\nnme = 'x'", files={"src/x.py": ""})
    assert sys.path == before


def test_a_module_of_the_user_never_replaces_one_of_python(loads: Loads) -> None:
    loads("", files={"colorsys.py": "raise RuntimeError"})
    sys.modules.pop("colorsys", None)
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("import absent_library", "ModuleNotFoundError: No module named 'absent_library'"),
        ("\n1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise Exception('one\\ntwo')", "Exception: one"),
        ("class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd", "Odd: an exception that cannot"),
    ],
)
def test_a_module_that_fails_to_import_is_an_error_with_its_place(refuses: Refuses, content: str, found: str) -> None:
    [error] = refuses(actor("failing_module:A"), files={"failing_module.py": content})
    assert (error.kind, error.key) == ("import", "actors.a.class")
    assert "failing_module.py:" in error.problem
    assert str(error.found).startswith(found)


def test_an_import_error_shows_no_secret(refuses: Refuses) -> None:
    Secret("secret-of-the-import")
    files = {"leaking_module.py": "raise RuntimeError('cannot use secret-of-the-import')"}
    [error] = refuses(actor("leaking_module:A"), files=files)
    assert error.found == "RuntimeError: cannot use ***"


def test_a_module_that_is_not_found_names_the_folders_that_were_searched(refuses: Refuses, tmp_path: Path) -> None:
    [error] = refuses(actor("absent_package.orders:A"))
    assert error.hint == f"daemon.path is searched ({tmp_path}), then Python's own path"


def test_a_module_with_a_name_of_ours_is_named_with_the_ways_out(refuses: Refuses, tmp_path: Path) -> None:
    [error] = refuses(actor("actors.orders:A"), files={"actors/__init__.py": "", "actors/orders.py": "class A: ..."})
    assert error.kind == "collision"
    assert error.problem == "the module actors collides with regrow's own package actors, which is imported instead"
    assert error.found == f"actors in {tmp_path}"
    assert error.hint == "rename it, or move it into a package of your own (my_app/actors.py, named my_app.actors)"


@pytest.mark.parametrize("name", ["runtime", "supervisors", "config", "regrow", "tests"])
def test_each_package_of_ours_is_known_as_a_collision(refuses: Refuses, name: str) -> None:
    [error] = refuses(actor(f"{name}:A"), files={f"{name}.py": "class A: ..."})
    assert error.kind == "collision"
    assert f"regrow's own package {name}" in error.problem


def test_a_module_with_a_name_of_python_is_named_with_the_place_that_wins(refuses: Refuses) -> None:
    [error] = refuses(actor("queue:A"), files={"queue.py": "class A: ..."})
    assert error.kind == "collision"
    assert "queue.py" in error.problem


@pytest.mark.parametrize(
    "content", ["from config import SETTINGS", "import config\nconfig.SETTINGS", "import config.mine"]
)
def test_importing_an_own_module_that_collides_with_ours_is_explained(refuses: Refuses, content: str) -> None:
    [error] = refuses(actor("innocent_module:A"), files={"innocent_module.py": content, "config.py": "SETTINGS = 1"})
    assert error.kind == "import"
    assert str(error.hint).startswith('"config" is also the name of a package of regrow')


def test_a_folder_beside_it_with_a_name_of_ours_is_no_mistake_by_itself(loads: Loads) -> None:
    loads(
        actor("peaceful_module:A"), files={"peaceful_module.py": "class A: ...", "tests/test_x.py": "", "config/x": ""}
    )


def test_our_own_packages_can_be_named_when_the_user_has_none_of_that_name(loads: Loads) -> None:
    assert loads(actor("tests.config.conftest:ServiceType")).classes["a"].__name__ == "ServiceType"


def test_what_is_no_class_is_an_error(refuses: Refuses) -> None:
    [error] = refuses(actor("function_module:run"), files={"function_module.py": "def run(): ..."})
    assert (error.kind, error.problem) == ("class", "function_module:run is function, no class")


def test_a_class_that_is_no_actor_is_an_error(refuses: Refuses) -> None:
    files = {"mixed_module.py": "class Actor: ...\nclass Good(Actor): ...\nclass Bad: ..."}

    def is_actor(value: object) -> bool:
        return any(cls.__name__ == "Actor" for cls in getattr(value, "__mro__", ()))

    [error] = refuses(actor("mixed_module:Bad"), files=files, is_actor=is_actor)
    assert error.problem == "mixed_module:Bad is a class that is no actor"
    assert error.expected == "a subclass of regrow.Actor"


def test_the_reason_why_a_class_cannot_be_used_is_told(refuses: Refuses) -> None:
    def is_actor(value: object) -> bool:
        raise TypeError("greet is exported, so each argument needs a name")

    [error] = refuses(actor("mixed_module:A"), files={"mixed_module.py": "class A: ..."}, is_actor=is_actor)
    assert error.problem == "mixed_module:A cannot be used: greet is exported, so each argument needs a name"
    assert (error.key, error.kind) == ("actors.a.class", "class")


def test_a_class_that_is_an_actor_is_no_mistake(loads: Loads) -> None:
    files = {"mixed_module.py": "class Good: ..."}
    assert loads(actor("mixed_module:Good"), files=files, is_actor=lambda value: True).classes


SIGNATURES = """
from __future__ import annotations
import decimal
from typing import Annotated, Any, Literal
import msgspec
from config.schema import Duration

class Plain: ...
class Typed:
    def __init__(self, name: str, count: int = 1, *, mode: Literal["a", "b"] = "a",
                 share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0, pause: Duration = Duration(0),
                 names: list[str] | None = None, limits: dict[str, int] | None = None): ...
class Untyped:
    def __init__(self, name, count=1): ...
class Open:
    def __init__(self, name: str, **options: Any): ...
class Ignoring:
    def __init__(self, *_args: Any, **_kwargs: Any): ...
class PositionalOnly:
    def __init__(self, name: str, /): ...
class Foreign:
    def __init__(self, price: decimal.Decimal, queue: Queue = None): ...
class Heir(Typed): ...
"""


@pytest.mark.parametrize(
    ("name", "args", "made"),
    [
        ("Plain", "{}", {}),
        ("Typed", "{ name = 'x' }", {"name": "x"}),
        ("Typed", "{ name = 'x', share = 1, pause = '1m', names = ['y'], limits = { z = 1 } }",
         {"name": "x", "share": 1.0, "pause": 60.0, "names": ["y"], "limits": {"z": 1}}),
        ("Typed", "{ name = '${N}', count = '${N}' }", {"name": "5", "count": 5}),
        ("Heir", "{ name = 'x', mode = 'b' }", {"name": "x", "mode": "b"}),
        ("Untyped", "{ name = { deep = [1, '${N}'] }, count = 'x' }", {"name": {"deep": [1, "5"]}, "count": "x"}),
        ("Open", "{ name = 'x', anything = 1 }", {"name": "x", "anything": 1}),
        ("Foreign", "{ price = '${N}' }", {"price": "5"}),
    ],
)  # fmt: skip
def test_fitting_arguments_are_converted(loads: Loads, name: str, args: str, made: dict[str, Any]) -> None:
    config = loads(actor(f"signatures:{name}", args), {"N": "5"}, files={"signatures.py": SIGNATURES})
    assert config.actors["a"].args == made


@pytest.mark.parametrize(
    ("name", "args", "key", "problem"),
    [
        ("Plain", "{ x = 1 }", "x", "there is no such key"),
        ("Typed", "{}", "name", "Typed.__init__ requires this argument"),
        ("Typed", "{ name = 1 }", "name", "this value does not fit"),
        ("Typed", "{ name = 'x', cuont = 1 }", "cuont", "there is no such key"),
        ("Typed", "{ name = 'x', mode = 'c' }", "mode", "this value does not fit"),
        ("Typed", "{ name = 'x', share = 2 }", "share", "this value does not fit"),
        ("Typed", "{ name = 'x', pause = 5 }", "pause", "this value does not fit"),
        ("Typed", "{ name = 'x', names = ['y', 1] }", "names[1]", "this value does not fit"),
        ("Typed", "{ name = 'x', limits = { z = 'y' } }", "limits.z", "this value does not fit"),
        ("Untyped", "{}", "name", "Untyped.__init__ requires this argument"),
        ("Ignoring", "{ x = 1 }", "x", "there is no such key"),
        ("Heir", "{ name = 'x', y = 1 }", "y", "there is no such key"),
    ],
)
def test_arguments_that_do_not_fit_are_errors(refuses: Refuses, name: str, args: str, key: str, problem: str) -> None:
    [error] = refuses(actor(f"signatures:{name}", args), files={"signatures.py": SIGNATURES})
    assert (error.key, error.problem, error.line) == (f"actors.a.args.{key}", problem, 4)


def test_a_parameter_that_no_name_can_reach_is_an_error(refuses: Refuses) -> None:
    errors = refuses(actor("signatures:PositionalOnly", "{ name = 'x' }"), files={"signatures.py": SIGNATURES})
    assert errors[-1].key == "actors.a.args.name"


def test_variables_in_untyped_arguments_are_redacted(loads: Loads) -> None:
    args = "{ name = { deep = ['key-${T}'] } }"
    loads(actor("signatures:Untyped", args), {"T": "token-of-args"}, files={"signatures.py": SIGNATURES})
    assert redact("key-token-of-args") == "key-***"
