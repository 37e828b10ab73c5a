"""Debian's grammar of what names packages: the one place that says what may become a path, an option or a line. Pure.

Names, versions and architectures: https://www.debian.org/doc/debian-policy/ch-controlfields.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hardening.foundation.errors import OutsideError

NAME = r"[a-z0-9][a-z0-9+.-]+"
# At the end of a package's name apt takes a `-` for "remove it".
WANTED_NAME = r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]"
VERSION = r"(?:[0-9]+:[0-9][A-Za-z0-9.+~:-]*|[0-9][A-Za-z0-9.+~-]*)"
ARCHITECTURE = r"[a-z0-9][a-z0-9-]*"
SUITE = r"[a-z0-9][a-z0-9.-]*"
COMPONENT = r"[a-z0-9][a-z0-9-]*"
SHA256 = r"[0-9a-f]{64}"
DIGEST = rf"sha256:{SHA256}"
NUMBER = r"[0-9]{1,15}"
FILENAME = r"(?!/)(?!(?:.*/)?\.\.(?:/|$))[!-~]+"  # relative, without `..`, printable

FIELDS = {
    "Package": NAME,
    "Version": VERSION,
    "Architecture": ARCHITECTURE,
    "Source": rf"{NAME}(?: \({VERSION}\))?",
    "SHA256": SHA256,
    "Filename": FILENAME,
    "Size": NUMBER,
    "Installed-Size": NUMBER,
}
FIELD = re.compile(r"[!\"$-,.-9;-~][!-9;-~]*")  # begins with neither # nor -
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SHOWN = 120
HINT = "the archive or image does not follow Debian's format: use another one"


def matches(pattern: str, value: str) -> bool:
    """Whether all of `value` is what `pattern`, one of this module's, describes."""
    return re.fullmatch(pattern, value) is not None


def require(fields: Mapping[str, str], *needed: str) -> None:
    """Raises OutsideError where one of a package's `fields` is not as Debian's grammar has it, or a `needed` is absent.

    Other fields are not looked at: they become neither a path nor an option.
    """
    for key, pattern in FIELDS.items():
        if key in fields and not matches(pattern, fields[key]):
            raise OutsideError(f"{key} of a package is not what Debian allows: {fields[key][:SHOWN]!r}", hint=HINT)
        if key in needed and key not in fields:
            raise OutsideError(f"a package's entry has no {key}", evidence=repr(dict(fields))[: 4 * SHOWN], hint=HINT)


def suite(name: str, where: str) -> str:
    """The VERSION_CODENAME `name`, which an os-release at `where` holds. Raises OutsideError where it is no name."""
    if not matches(SUITE, name):
        raise OutsideError(
            f"{where}: VERSION_CODENAME in its os-release is no name of a release: {name[:SHOWN]!r}", hint=HINT
        )
    return name
