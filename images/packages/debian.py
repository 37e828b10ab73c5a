"""Debian's text formats as values: deb822 stanzas, apt sources, what apt-get prints, dpkg's status. Pure.

First its grammar of what names packages, the one place that says what may become a path, an option or a line:
https://www.debian.org/doc/debian-policy/ch-controlfields.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from hardening.foundation.errors import OutsideError
from images.artifact import Package

NAME = r"[a-z0-9][a-z0-9+.-]+"
# At the end of a package's name apt takes a `-` for "remove it".
WANTED_NAME = r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]"
VERSION = r"(?:[0-9]+:[0-9][A-Za-z0-9.+~:-]*|[0-9][A-Za-z0-9.+~-]*)"
ARCHITECTURE = r"[a-z0-9][a-z0-9-]*"
SUITE = r"[a-z0-9][a-z0-9.-]*"
COMPONENT = r"[a-z0-9][a-z0-9-]*"
SHA256 = r"[0-9a-f]{64}"
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
KNOWN = {name.lower(): name for name in (*FIELDS, "Status")}  # dpkg and apt read a field's name in any letters
FIELD = re.compile(r"[!\"$-,.-9;-~][!-9;-~]*")  # begins with neither # nor -
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SHOWN = 120
HINT = "the archive or image does not follow Debian's format: use another one"


def require(fields: Mapping[str, str], *needed: str) -> None:
    """Raises OutsideError where one of a package's `fields` is not as Debian's grammar has it, or a `needed` is absent.

    Other fields are not looked at: they become neither a path nor an option.
    """
    for key, pattern in FIELDS.items():
        if key in fields and not re.fullmatch(pattern, fields[key]):
            raise OutsideError(f"{key} of a package is not what Debian allows: {fields[key][:SHOWN]!r}", hint=HINT)
        if key in needed and key not in fields:
            raise OutsideError(f"a package's entry has no {key}", evidence=repr(dict(fields))[: 4 * SHOWN], hint=HINT)


QUOTED = r"""'[^']*+'|"(?:[^"\\]++|\\[\s\S])*+"|\\[\s\S]"""
PART = rf"""{QUOTED}|[^ \t\r\n'"\\]++"""
ASSIGNMENT = re.compile(
    rf"""^[ \t\r]*+([A-Za-z_]\w*+)="""
    rf"""(?:((?:{PART})*+)[ \t\r]*+(?:(?<=[ \t\r])#.*+)?$|((?:{PART}|[ \t\r]++(?!#))*+.*+))""",
    re.ASCII | re.MULTILINE,
)
"""A variable: its name, and its value as one word, else all words of its line; both may reach over several lines."""


def os_release(text: str) -> dict[str, str]:
    """The variables of os-release(5) as a shell has them in the end: of a name that stands twice, the later one.

    Nothing is expanded. More than one word, and a quotation mark that is not closed, stay as they stand.
    """
    return {one[1]: one[3] or re.sub(QUOTED, _unquoted, one[2] or "") for one in ASSIGNMENT.finditer(text)}


def _unquoted(part: re.Match[str]) -> str:
    if part[0].startswith('"'):
        return re.sub(r'\\(?:\n|([$`"\\]))', r"\1", part[0][1:-1])
    return part[0][1:-1] if part[0].startswith("'") else part[0][1:].replace("\n", "")


def suite(name: str, where: str) -> str:
    """The VERSION_CODENAME `name`, which an os-release at `where` holds. Raises OutsideError where it is no name."""
    if not re.fullmatch(SUITE, name):
        raise OutsideError(
            f"{where}: VERSION_CODENAME in its os-release is not the name of a release: {name[:SHOWN]!r}", hint=HINT
        )
    return name


KEYRING = "/usr/share/keyrings/debian-archive-keyring.pgp"


@dataclass(frozen=True)
class Source:
    """One place that packages come from, as a deb822 sources stanza says it."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def text(self, signed_by: str) -> str:
        """The stanza; `signed_by` is a keyring's path or an armored key."""
        fields = {"Types": "deb", "URIs": " ".join(self.uris), "Suites": " ".join(self.suites)}
        if not self.suites[0].endswith("/"):
            fields["Components"] = " ".join(self.components)
        fields["Signed-By"] = signed_by
        return "".join(f"{key}: {value}\n" for key, value in fields.items())


def stanzas(text: str) -> Iterator[str]:
    """The paragraphs of a control file, without the empty lines between them."""
    return (part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip())


def fields(stanza: str) -> dict[str, str]:
    """The fields of one paragraph; continuation lines stay in their value, comment lines do not. One that we know has
    its name as Debian writes it, in whatever letters it stands there.

    Raises OutsideError for a field that stands there twice, in whatever case, and for a line that is no field: programs
    differ in what they make of these.
    """
    values: dict[str, str] = {}
    seen: set[str] = set()
    key = ""
    if found := CONTROL.search(stanza):
        raise OutsideError(f"an entry holds the control character {found[0]!r}", evidence=_shown(stanza), hint=HINT)
    for line in stanza.strip("\n").split("\n"):
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and key:
            values[key] += "\n" + line
            continue
        key, colon, value = line.partition(":")
        if not colon or not FIELD.fullmatch(key):
            raise OutsideError(
                f"an entry has a line that is not a field: {line[:200]!r}", evidence=_shown(stanza), hint=HINT
            )
        if key.lower() in seen:
            raise OutsideError(f"an entry says {key} twice", evidence=_shown(stanza), hint=HINT)
        seen.add(key.lower())
        key = KNOWN.get(key.lower(), key)
        values[key] = value.strip()
    return values


def _shown(stanza: str) -> str:
    """The beginning of an entry, as evidence: whatever it holds cannot act on a terminal."""
    return "\n".join(repr(line)[1:-1] for line in stanza[:400].split("\n"))


NO = r"(?:no|false|without|off|disable|0)"  # what switches off in apt's files; any other word does not


def sources_of(text: str) -> Iterator[Source]:
    """The enabled, signed sources of a deb822 `.sources` file."""
    for stanza in stanzas(text.replace("\r\n", "\n")):
        found = {key.lower(): value for key, value in fields(stanza).items()}
        enabled = not re.fullmatch(NO, found.get("enabled", ""), re.IGNORECASE)
        trusted = found.get("trusted", "no").lower() in {"yes", "true", "1"}
        if enabled and not trusted and "deb" in found.get("types", "").split():
            yield Source(
                tuple(found.get("uris", "").split()),
                tuple(found.get("suites", "").split()),
                tuple(found.get("components", "").split()),
                found.get("signed-by", ""),
            )


def may_be_unsigned(text: str) -> bool:
    """Whether a deb822 `.sources` file lets apt take an index that no key signed: then its date proves nothing."""
    return bool(re.search(rf"(?im)^(?:trusted|allow-insecure|allow-weak)[ \t]*:(?![ \t]*{NO}[ \t]*$)", text))


def one_line_sources(text: str) -> Iterator[Source]:
    """The signed sources of a one-line `.list` file."""
    for line in text.splitlines():
        match = re.fullmatch(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)(?:#.*)?", line.strip())
        if match and "trusted=yes" not in (match[1] or ""):
            signed = re.search(r"signed-by=(\S+)", match[1] or "")
            yield Source((match[2],), (match[3],), tuple(match[4].split()), signed[1] if signed else "")


def for_suite(sources: Iterable[Source], suite: str, components: tuple[str, ...]) -> tuple[Source, ...]:
    """Those of `sources` that serve `suite`, its updates and its security updates, narrowed to `components`."""
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    narrowed = (
        replace(source, suites=tuple(name for name in source.suites if name in wanted), components=components)
        for source in sources
    )
    return tuple(source for source in narrowed if source.suites)


def armored(keyring: bytes) -> str:
    """A keyring as the value of Signed-By, so that sources carry their own key: armored, as a deb822 continuation."""
    if keyring.lstrip().startswith(b"-----BEGIN"):
        lines = keyring.decode().strip().splitlines()
    else:
        body = base64.b64encode(keyring).decode()
        wrapped = [body[i : i + 64] for i in range(0, len(body), 64)]
        lines = ["-----BEGIN PGP PUBLIC KEY BLOCK-----", "", *wrapped, "-----END PGP PUBLIC KEY BLOCK-----"]
    return "\n" + "\n".join(f" {line.strip() or '.'}" for line in lines)


def parse_uris(text: str) -> dict[str, str]:
    """`name=version` → SHA256 for each package that `apt-get --print-uris` would fetch.

    Raises OutsideError for one whose name is not of Debian's form: it would be missing in silence.
    """
    wanted = {}
    for line in (line for line in text.splitlines() if line.startswith("'")):
        match = re.match(r"'[^']+' (\S+?)_(\S+)_([a-z0-9-]+)\.deb \d+ SHA256:(\S+)", line)
        version = unquote(match[2]) if match else ""
        if match is None or not re.fullmatch(VERSION, version):
            raise OutsideError(
                f"apt names a file whose name is not that of a Debian package: {line[:400]!r}", hint=HINT
            )
        wanted[f"{match[1]}={version}"] = match[4]
    return wanted


def upgrades(text: str) -> dict[str, tuple[str, str, bool]]:
    """Name → (installed, newer, whether it is kept back) of what `apt-get -s -V dist-upgrade` would do, or would not.

    What it would install anew is none.
    """
    taken = re.finditer(rf"(?m)^Inst ({NAME})(?::\S+)? \[({VERSION})\] \(({VERSION}) ", text)
    kept = re.search(r"(?m)^The following packages have been kept back:\n((?:   .*\n)*)", text)
    held = re.finditer(rf"(?m)^   ({NAME})(?::\S+)? \(({VERSION}) => ({VERSION})\)$", kept[1] if kept else "")
    found = {one[1]: (one[2], one[3], False) for one in taken}
    return found | {one[1]: (one[2], one[3], True) for one in held}


def candidates(text: str) -> dict[str, str]:
    """Name → the version that apt would take, as `apt-cache policy` tells it."""
    return dict(re.findall(rf"(?m)^({NAME}):\n  Installed: .*\n  Candidate: ({VERSION})$", text))


def listed(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, version and address of each place that `apt-cache madison` lists."""
    for line in text.splitlines():
        name, version, place = (*(part.strip() for part in line.split("|", 2)), "", "", "")[:3]
        if place and not place.endswith(" Sources"):
            yield name, version, place.partition(" ")[0]


SIGNED_TEXT = re.compile(r"-----BEGIN PGP SIGNED MESSAGE-----[ \t\r]*\n")
EMPTY_LINE, SIGNATURE = re.compile(r"(?m)^[ \t\r]*\n"), re.compile(r"(?m)^-----BEGIN PGP SIGNATURE-----")


def _signed(release: str) -> str:
    """The text of a release file that is signed inside; empty where it is cut short."""
    begun = SIGNED_TEXT.match(release)
    head = EMPTY_LINE.search(release, begun.end()) if begun else None
    end = SIGNATURE.search(release, head.end()) if head else None
    return release[head.end() : end.start()] if head and end else ""


def date_of(release: str) -> str:
    """The date of a release file as it stands there; empty where it has none.

    Where it is signed inside, what stands before the first empty line and after the text is not signed: apt passes over
    it, and a mirror may write there what it likes. In the text it may put a dash before a line, as RFC 9580 has it.
    """
    if release.lstrip().startswith("-----BEGIN PGP"):
        release = _signed(release)
    found = re.search(r"(?m)^(?:- )?Date: (.{1,64})$", release)
    return found[1].strip() if found else ""


def package_of(stanza: str) -> Package:
    """The package that an entry of an archive's index describes. Raises OutsideError where it is not Debian's form."""
    found = fields(stanza)
    require(found, "Package", "Version", "Architecture", "SHA256")
    return _package(found, found["SHA256"])


def _package(found: dict[str, str], sha256: str) -> Package:
    source, _, version = found.get("Source", found["Package"]).partition(" ")
    return Package(
        found["Package"], found["Version"], found["Architecture"], sha256, source, source_version=version.strip("()")
    )


def as_installed(stanza: str) -> str:
    """An index stanza as dpkg's status holds it once installed: without what only an archive knows."""
    archive_only = r"(?i)(Filename|Size|MD5sum|SHA1|SHA256|SHA512|Description-md5|Status|Tag):"
    kept = [field for field in re.split(r"\n(?![ \t])", stanza) if not re.match(archive_only, field)]
    return "\n".join([*kept[:1], "Status: install ok installed", *kept[1:]])


GONE = ("not-installed", "config-files")
"""The states of dpkg(1) in which nothing of a package can run. In all others its files are there, such as `unpacked`,
`half-configured` and `triggers-pending`; dpkg takes their words in any letters.
"""


def installed(status: str) -> dict[Package, str]:
    """The packages whose files are there by a dpkg status, in order of name, each with its entry.

    None has a hash: a status is what a system says of itself, and no archive signed it. Raises OutsideError where an
    entry is not Debian's form.
    """
    found: dict[Package, str] = {}
    for stanza in stanzas(status):
        told = fields(stanza)
        if not told.get("Status", GONE[0]).lower().endswith(GONE):
            require(told, "Package", "Version", "Architecture")
            found[_package(told, "")] = stanza
    return dict(sorted(found.items()))


def repository_stanza(stanza: str, filename: str) -> str:
    """An index stanza that points at `filename`."""
    return re.sub(r"(?im)^Filename:.*$", f"Filename: {filename}", stanza)


def pool_name(package: Package) -> str:
    """The file name of a .deb as apt writes it. Raises OutsideError where its parts are none that Debian allows."""
    parts = {"Package": package.name, "Version": package.version, "Architecture": package.architecture}
    require(parts)
    return f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
