"""Imports the user's actor classes while the configuration is checked, and fits `args` to their `__init__`.

A class that cannot be imported is a mistake in the configuration like any other: it is found before anything starts.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from config.check import INVALID, Checker
from config.errors import KeyPath, Report
from config.substitute import Unset

# Our own top-level packages. A module of the user's with one of these names is never the one that is imported.
OUR_PACKAGES: Final = frozenset({"runtime", "actors", "supervisors", "config", "regrow", "tests", "bench"})


def import_class(
    spec: str, folders: Sequence[Path], is_actor: Callable[[object], bool] | None, path: KeyPath, report: Report
) -> type | None:
    """The class named "package.module:Class", or None when it was reported. Runs the module's code."""
    module_name, _, attributes = spec.partition(":")
    top = module_name.partition(".")[0]
    folder = next((folder for folder in folders if _holds_module(folder, top)), None)
    if folder is not None:
        taken_by = _taken_by(top, folder)
        if taken_by is not None:
            _report_collision(top, folder, taken_by, path, report)
            return None
    try:
        importlib.invalidate_caches()
        value: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything while it is imported
        _report_import(error, module_name, folders, path, report)
        return None
    for name in attributes.split("."):
        if not hasattr(value, name):
            public = [known for known in vars(value) if not known.startswith("_")]
            nearest = difflib.get_close_matches(name, public, n=1)
            report.add(
                path,
                "class",
                f"{module_name} has no {name}",
                found=spec,
                expected="a class of that module",
                nearest=nearest[0] if nearest else None,
            )
            return None
        value = getattr(value, name)
    try:
        is_good = isinstance(value, type) and (is_actor is None or is_actor(value))
    except (TypeError, ValueError) as error:
        report.add(path, "class", f"{spec} cannot be used: {_first_line(error)}")
        return None
    if not is_good:
        what = "a class that is no actor" if isinstance(value, type) else f"{type(value).__name__}, no class"
        report.add(
            path,
            "class",
            f"{spec} is {what}",
            expected="a subclass of regrow.Actor",
            hint="class Name(regrow.Actor): ...",
        )
        return None
    return cast(type, value)


def fit_args(cls: type, args: dict[str, Any], path: KeyPath, checker: Checker) -> dict[str, Any] | None:
    """`args` as the class's `__init__` wants them, converted to its annotations; None when something was reported."""
    report = checker.report
    before = len(report.errors)
    initializer = inspect.getattr_static(cls, "__init__")
    try:
        # That of object takes *args and **kwargs by its signature, and refuses all of them.
        written = initializer is not object.__init__
        parameters = list(inspect.signature(initializer).parameters.values())[1:] if written else []
    except (TypeError, ValueError):  # a class of native code may hide its signature
        return args
    try:
        hints = typing.get_type_hints(initializer, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation may name anything; then only the names are checked
        hints = {}
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    # **_ignored, as in the actor class's own __init__, takes everything and uses nothing: no place for an argument.
    takes_any = any(
        parameter.kind is parameter.VAR_KEYWORD and not parameter.name.startswith("_") for parameter in parameters
    )
    made: dict[str, Any] = {}
    for name, value in args.items():
        if name not in named and not takes_any:
            checker.unknown_key((*path, name), list(named), hint=f"{cls.__name__}.__init__ does not take it")
        elif not isinstance(value, Unset):
            made[name] = _fit(hints.get(name, Any), value, (*path, name), checker)
    for parameter in parameters:
        if parameter.default is not parameter.empty or parameter.name in args:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            report.add(path, "args", f"{cls.__name__}.__init__ has a positional-only parameter {parameter.name}")
        elif parameter.name in named:
            report.add(
                (*path, parameter.name),
                "missing_key",
                f"{cls.__name__}.__init__ requires this argument",
                hint=f"args = {{ {parameter.name} = ... }}",
            )
    return made if len(report.errors) == before and INVALID not in made.values() else None


def arguments_of(cls: type) -> list[str]:
    """The names of the arguments that public methods of a class take, sorted."""
    names: set[str] = set()
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_"):
            names.update(list(inspect.signature(method).parameters)[1:])
    return sorted(names)


def _fit(kind: Any, value: Any, path: KeyPath, checker: Checker) -> Any:
    try:
        return checker.value(kind, value, path)
    except TypeError:  # an annotation that configuration has no values for: __init__ itself has to judge
        return checker.value(Any, value, path)


def _holds_module(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


def _taken_by(top: str, folder: Path) -> str | None:
    """Where an import of that name really leads, when that is not the user's folder."""
    loaded = sys.modules.get(top)
    try:
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        return f"the module of Python itself ({spec.origin})"
    places = list(spec.submodule_search_locations or []) or [spec.origin or ""]
    wanted = {(folder / top).resolve(), (folder / f"{top}.py").resolve(), (folder / top / "__init__.py").resolve()}
    if any(Path(place).resolve() in wanted for place in places):
        return None
    if top in OUR_PACKAGES:
        return f"regrow's own package {top}"
    return str(places[0])


def _report_collision(top: str, folder: Path, taken_by: str, path: KeyPath, report: Report) -> None:
    report.add(
        path,
        "collision",
        f"the module {top} collides with {taken_by}, which is imported instead",
        found=f"{top} in {folder}",
        expected="a module whose name is its own",
        hint=f"rename it, or move it into a package of your own (my_app/{top}.py, named my_app.{top})",
    )


def _report_import(
    error: BaseException, module_name: str, folders: Sequence[Path], path: KeyPath, report: Report
) -> None:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    frames = [frame for frame in frames if Path(frame.filename) != Path(__file__)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" at {error.filename}:{error.lineno}"
    hint = None
    missing = error.name if isinstance(error, ImportError) else None
    if isinstance(error, AttributeError) and inspect.ismodule(error.obj):
        missing = error.obj.__name__
    ours = (missing or "").partition(".")[0]
    if ours in OUR_PACKAGES and any(_holds_module(folder, ours) for folder in folders):
        hint = (
            f'"{ours}" is also the name of a package of regrow, which is imported instead of yours: rename yours, or '
            f"move it into a package of your own (my_app.{ours})"
        )
    elif isinstance(error, ModuleNotFoundError) and error.name and _is_part_of(error.name, module_name):
        searched = ", ".join(map(str, folders)) or "nothing"
        hint = f"daemon.path is searched ({searched}), then Python's own path"
    report.add(
        path,
        "import",
        f"importing {module_name} failed{where}",
        found=f"{type(error).__name__}: {_first_line(error)}",
        expected="a module that can be imported",
        hint=hint,
    )


def _is_part_of(name: str, module_name: str) -> bool:
    return module_name == name or module_name.startswith(f"{name}.")


def _first_line(error: BaseException) -> str:
    try:
        return (str(error).splitlines() or [""])[0][:300]
    except Exception:  # noqa: BLE001 - the user's exception may fail to show itself
        return "an exception that cannot be shown"
