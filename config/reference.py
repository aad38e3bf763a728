"""The reference page of the configuration: Markdown made from the JSON Schema, so that neither can forget a key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

#: the alternative that every value has: a text with a variable in it
VARIABLE = r"\$\{"

INTRODUCTION = """\
# Configuration reference

Made by `regrow schema --markdown` from the code that checks the file; [the README](../README.md) tells how the parts
work together. Durations are texts such as `"100ms"`, `"5m"` or `"1h30m"`, sizes such as `"8MiB"`. `${NAME}` and
`${NAME:-default}` take values from the environment anywhere; such values are never shown. Relative paths start from the
folder of the file. Keys without a default are absent unless they are marked as required.
"""


def reference(schema: Mapping[str, Any]) -> str:
    """Return the reference page: one section for each table, in the order in which they are found. Never switches."""
    return "\n".join([INTRODUCTION, *Page(schema).sections()])


class Page:
    """One pass over the schema; tables that several keys share are told at the first place that names them."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._definitions: Mapping[str, Any] = schema["$defs"]
        self._todo: list[tuple[str, Mapping[str, Any]]] = []
        self._titles: dict[str, str] = {}

    def sections(self) -> Iterator[str]:
        """Yield the Markdown of each section. Never switches."""
        properties = self._schema["properties"]
        for name in ("daemon", "gateway", "http"):
            self._place(f"[{name}]", properties[name]["$ref"])
        self._place("[actors.NAME]", properties["actors"]["additionalProperties"]["$ref"])
        for branch in properties["integrations"]["additionalProperties"]["allOf"]:
            kind = branch["if"]["properties"]["type"]["const"]
            self._place(f"[integrations.NAME], type {kind}", branch["then"]["$ref"])
        while self._todo:
            title, table = self._todo.pop(0)
            yield self._section(title, table)

    def _place(self, title: str, target: str) -> str:
        """Queue the section of a table unless it has one, and return its title."""
        if target not in self._titles:
            self._titles[target] = title
            self._todo.append((title, self._definitions[target.rpartition("/")[2]]))
        return self._titles[target]

    def _section(self, title: str, table: Mapping[str, Any]) -> str:
        required = table.get("required", ())
        rows = ["| key | takes | default | |", "| --- | --- | --- | --- |"]
        for key, value in table["properties"].items():
            if "const" in value:
                continue
            default = "required" if key in required else _default(value)
            rows.append(
                f"| `{key}` | {self._takes(value, key, title)} | {default} | {_cell(value.get('description', ''))} |"
            )
        return "\n".join([f"## {_cell(title)}", "", _cell(table.get("description", "")), "", *rows, ""])

    def _takes(self, value: Mapping[str, Any], key: str, title: str) -> str:
        if "$ref" in value:
            found = self._definitions[value["$ref"].rpartition("/")[2]]
            if found.get("type") != "object":
                return _cell(str(found["title"]).partition(" such as")[0])
            place = self._place(f"{key} of {title}", value["$ref"])
            return f"a table: [{_cell(place)}](#{_anchor(place)})"
        if "anyOf" in value:
            kinds = [self._takes(kind, key, title) for kind in value["anyOf"] if kind.get("pattern") != VARIABLE]
            return " or ".join(dict.fromkeys(kinds))
        if "enum" in value:
            return ", ".join(f"`{_text(word)}`" for word in value["enum"])
        kind = value.get("type")
        if kind == "array":
            return f"a list, each {self._takes(value.get('items', {}), key, title)}"
        if kind == "object":
            inner = value.get("additionalProperties")
            return (
                f"a table by name, each {self._takes(inner, key, title)}"
                if isinstance(inner, dict) and inner
                else "a table"
            )
        return {"string": "a text", "boolean": "true or false", "integer": f"a whole number{_range(value)}",
                "number": f"a number{_range(value)}"}.get(str(kind), "anything")  # fmt: skip


def _range(value: Mapping[str, Any]) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    if low is None:
        return "" if high is None else f" up to {high:,}"
    return f" from {low:,}" if high is None else f", {low:,} to {high:,}"


def _default(value: Mapping[str, Any]) -> str:
    return f"`{_text(value['default'])}`" if "default" in value else ""


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
