"""Web links of a response (RFC 8288): where the next page is."""

from __future__ import annotations

import re
from urllib.parse import urljoin

_LINK = re.compile(r'\s*<([^<>]*)>((?:[^,"]|"(?:[^"\\]|\\.)*")*)(?:,|$)')
_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,"\s]*)))?')
MAX_FIELD_CHARS = 16_384


def links(field: str | None, base: str) -> dict[str, str]:
    """Return the targets of a Link field by relation, absolute; of a relation said twice, the first. Never switches.

    What follows a part that cannot be read is left out; raises ValueError for a target that is no url at all.
    """
    found: dict[str, str] = {}
    text = (field or "")[:MAX_FIELD_CHARS]
    at = 0
    while at < len(text) and (match := _LINK.match(text, at)):
        at = match.end()
        for name, quoted, plain in _PARAMETER.findall(match[2]):
            if name.lower() == "rel":
                # Of several rel parameters only the first counts (RFC 8288, 3.3).
                for relation in (quoted or plain).lower().split():
                    found.setdefault(relation, urljoin(base, match[1]))
                break
    return found
