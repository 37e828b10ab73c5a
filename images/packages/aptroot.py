"""The private apt root: its configuration and sources. From the host's apt only addresses, proxy and logins count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from signal import SIGXFSZ

from hardening.foundation.addresses import LOGIN_HINT, has_login, without_login
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.limits import APT_MEMORY, APT_SECONDS, INDEX_BYTES, Limit
from hardening.foundation.process import run, which
from hardening.foundation.settings import Settings
from images.model import Bootstrap
from images.packages import debian
from images.packages.debian import Source

HOST, DEBIANS = Path("/etc/apt"), Path(debian.KEYRING)
UNVERIFIED = "var/lib/apt/lists/partial"  # below the root: what apt fetched of an index and did not accept yet
LONGEST_SECONDS = float(APT_SECONDS.most)  # a mirror may answer, and send nothing
LARGEST_INDEX = INDEX_BYTES.most


def sources_text(settings: Settings, bootstrap: Bootstrap) -> str:
    """The deb822 text for images: by the distribution's keyring where that signs it, else with the key inside."""
    found = _archives(settings, bootstrap)
    return "\n".join(source.text(_signed_by_inside(settings, source)) for source in found)


def sources_of(settings: Settings, bootstrap: Bootstrap) -> str:
    """The deb822 text for planning on this host: keyrings by their path here, and the extra sources of the settings."""
    extra = (_extra(path) for path in settings.packages.extra_sources)
    return "\n".join([archive_sources(settings, bootstrap), *extra])


def archive_sources(settings: Settings, bootstrap: Bootstrap) -> str:
    """The same of the distribution's archive alone."""
    found = _archives(settings, bootstrap)
    return "\n".join(source.text(source.signed_by or str(_keyring(settings))) for source in found)


def addresses(settings: Settings, bootstrap: Bootstrap) -> tuple[str, ...]:
    """Where the archives of this distribution are, in their order. Raises ContentError without any."""
    return tuple(dict.fromkeys(uri.rstrip("/") for source in _archives(settings, bootstrap) for uri in source.uris))


def extra_sources(settings: Settings) -> str:
    """The deb822 text of what is outside the distribution's archive."""
    return "\n".join(_extra(path) for path in settings.packages.extra_sources)


def configure(
    settings: Settings, bootstrap: Bootstrap, root: Path, scratch: Path, status: str, *, sources: str = "",
    held: Sequence[tuple[str, str]] = (),
) -> Path:  # fmt: skip
    """Lay out the root and write its apt.conf into `scratch`; returns the file, for APT_CONFIG.

    `sources`: no others than these. `held`: packages by name and version that apt shall not take.
    """
    for name in ("etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d", "etc/sources.list.d"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    for name in (UNVERIFIED, "var/cache/apt"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (scratch / "archives/partial").mkdir(parents=True)
    (scratch / "etc/sources.list.d/goldsmith.sources").write_text(sources or sources_of(settings, bootstrap))
    if held:
        pins = (f"Package: {name}\nPin: version {version}\nPin-Priority: -1\n" for name, version in held)
        (scratch / "etc/preferences.d/cooldown").write_text("\n".join(pins))
    (scratch / "status").write_text(status + "\n" if status else "")
    config = scratch / "apt.conf"
    config.write_text(_config(root, scratch, settings.platform.removeprefix("linux/")) + _proxy(settings))
    return config


def _config(root: Path, scratch: Path, architecture: str) -> str:
    """Own state below `root`; what belongs to one call only (status, empty archive directory, sources) in `scratch`."""
    return f"""Dir "{root}";
Dir::Etc "{scratch}/etc";
Dir::Etc::parts "{scratch}/etc/apt.conf.d";
Dir::Etc::netrc "{HOST}/auth.conf";
Dir::Etc::netrcparts "{HOST}/auth.conf.d";
Dir::State "{root}/var/lib/apt";
Dir::State::status "{scratch}/status";
Dir::State::extended_states "{scratch}/extended_states";
Dir::Cache "{root}/var/cache/apt";
Dir::Cache::archives "{scratch}/archives";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "0";
"""


def _proxy(settings: Settings) -> str:
    if settings.packages.proxy:
        return (
            f'Acquire::http::Proxy "{settings.packages.proxy}";\nAcquire::https::Proxy "{settings.packages.proxy}";\n'
        )
    return _host_proxy()


def limited(argv: Sequence[str], largest: int = 0) -> list[str]:
    """`argv`, a program of apt that fetches, so that no file of it, by default an index, fills disk or memory."""
    limits = [f"--fsize={largest or LARGEST_INDEX}", f"--as={APT_MEMORY.most}"]
    return ["prlimit", *limits, *argv] if which(argv[0]) else list(argv)


def too_large(stderr: str, limit: Limit = INDEX_BYTES) -> str:
    """What to say where apt, under `limited`, was ended for a file's size; else nothing."""
    if f"received signal {int(SIGXFSZ)}" not in stderr:
        return ""
    most = LARGEST_INDEX if limit is INDEX_BYTES else limit.most
    return f"a file of it exceeds {most} bytes (the limit {limit.name}): ask whose archive that is"


@lru_cache
def _host_proxy() -> str:
    """The host's own apt proxy lines."""
    return proxy_lines(run(["apt-config", "dump", "Acquire"]).stdout)


def proxy_lines(dump: str) -> str:
    """The proxies in what `apt-config dump` says. Raises ContentError where one holds a login."""
    lines = [line for line in dump.splitlines() if re.match(r"Acquire::https?::Proxy", line)]
    if any(map(has_login, lines)):
        raise ContentError("the proxy of this host's apt has a login in its address", file=HOST, hint=LOGIN_HINT)
    return "".join(f"{line}\n" for line in lines)


def _archives(settings: Settings, bootstrap: Bootstrap) -> tuple[Source, ...]:
    """The archives of this distribution: the settings', else the host's own. Raises ContentError without any."""
    packages = settings.packages
    if packages.mirror:
        keyring = str(_keyring(settings))
        suites = tuple(suite.format(suite=bootstrap.suite) for suite in packages.suites)
        found = [Source((packages.mirror,), suites, bootstrap.components, keyring)]
        if packages.security_mirror:
            security = (f"{bootstrap.suite}-security",)
            found.append(Source((packages.security_mirror,), security, bootstrap.components, keyring))
        return tuple(found)
    host = debian.for_suite(_host_sources(HOST), bootstrap.suite, bootstrap.components)
    if not host:
        raise ContentError(
            f"no archive is known for {bootstrap.suite}",
            hint="this host's apt does not use that suite: set packages.mirror and packages.security_mirror "
            "in goldsmith.toml",
        )
    for uri in (uri for source in host for uri in source.uris if has_login(uri)):
        where = f"an address of this host's apt with a login in it: {without_login(uri)}"
        raise ContentError(f"{where}; images would hold it", file=HOST, hint=LOGIN_HINT)
    return host


@lru_cache
def _host_sources(folder: Path) -> tuple[Source, ...]:
    """All signed sources that the host's own apt is configured with."""
    found: list[Source] = []
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        found += debian.sources_of(path.read_text())
    for path in (folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))):
        found += debian.one_line_sources(path.read_text() if path.exists() else "")
    return tuple(found)


def _keyring(settings: Settings) -> Path:
    """The keyring that signs the archive: the settings', else the distribution's. Raises OutsideError without one."""
    candidates = [settings.packages.keyring] if settings.packages.keyring else []
    candidates += [] if candidates else [Path(debian.KEYRING), Path(debian.KEYRING).with_suffix(".gpg")]
    for path in candidates:
        if path.exists():
            return path.resolve() if path.is_symlink() else path.absolute()
    raise OutsideError(f"no keyring at {candidates[0]}", hint="install debian-archive-keyring, or set packages.keyring")


def _signed_by_inside(settings: Settings, source: Source) -> str:
    """How an image names the key of `source`: the path of Debian's keyring, which a package brings, or inline."""
    if source.signed_by.startswith("\n"):
        return source.signed_by
    keyring = Path(source.signed_by) if source.signed_by else _keyring(settings)
    if (keyring.stem, keyring.parent) == (DEBIANS.stem, DEBIANS.parent):
        return debian.KEYRING
    return debian.armored(_read_bytes(keyring))


def _extra(path: Path) -> str:
    """The text of one of `packages.extra_sources`. Raises ContentError where an address in it holds a login."""
    text = _read_bytes(path).decode()
    if any(re.search(r":/*[^/\s]*@", line) for line in text.splitlines() if not line.startswith("#")):
        raise ContentError("an address with a login in it", file=path, key="packages.extra_sources", hint=LOGIN_HINT)
    return text


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ContentError(f"cannot be read: {error.strerror}", file=path, key="packages") from None
