"""Debian's text formats as values: deb822 stanzas, apt sources, what apt-get prints, dpkg's status. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import unquote

from images.artifact import Package

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
    """The fields of one paragraph; continuation lines stay in their value, comment lines do not."""
    values: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in " \t" and key:
            values[key] += "\n" + line
        elif ":" in line:
            key, _, value = line.partition(":")
            values[key] = value.strip()
    return values


def sources_of(text: str) -> Iterator[Source]:
    """The enabled, signed sources of a deb822 `.sources` file."""
    for stanza in stanzas(text):
        found = {key.lower(): value for key, value in fields(stanza).items()}
        enabled = found.get("enabled", "yes").lower() in {"yes", "true", "1"}
        trusted = found.get("trusted", "no").lower() in {"yes", "true", "1"}
        if enabled and not trusted and "deb" in found.get("types", "").split():
            yield Source(
                tuple(found.get("uris", "").split()),
                tuple(found.get("suites", "").split()),
                tuple(found.get("components", "").split()),
                found.get("signed-by", ""),
            )


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


def parse_uris(text: str) -> list[str]:
    """`name=version` for each package that `apt-get --print-uris` would fetch."""
    wanted = []
    for line in text.splitlines():
        if match := re.match(r"'[^']+' (\S+?)_(\S+)_([a-z0-9]+)\.deb \d+", line):
            wanted.append(f"{match[1]}={unquote(match[2])}")
    return wanted


def package_of(stanza: str) -> Package:
    """The package that an index stanza describes."""
    found = fields(stanza)
    source = found.get("Source", found["Package"]).split(" ")[0]
    return Package(found["Package"], found["Version"], found["Architecture"], found.get("SHA256", ""), source)


def as_installed(stanza: str) -> str:
    """An index stanza as dpkg's status holds it once installed: without what only an archive knows."""
    archive_only = r"(Filename|Size|MD5sum|SHA1|SHA256|SHA512|Description-md5|Status|Tag):"
    kept: list[str] = []
    skipping = False
    for line in stanza.splitlines():
        if line[:1] not in " \t":
            skipping = bool(re.match(archive_only, line))
        if not skipping:
            kept.append(line)
    return "\n".join([kept[0], "Status: install ok installed", *kept[1:]])


def installed(status: str) -> tuple[Package, ...]:
    """The packages that a dpkg status says are installed, in order of name."""
    found = (package_of(stanza) for stanza in stanzas(status) if "\nStatus: install ok installed" in stanza)
    return tuple(sorted(found))


def repository_stanza(stanza: str, filename: str) -> str:
    """An index stanza that points at `filename`."""
    return re.sub(r"(?m)^Filename:.*$", f"Filename: {filename}", stanza)


def pool_name(package: Package) -> str:
    """The file name of a .deb as apt writes it."""
    return f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
