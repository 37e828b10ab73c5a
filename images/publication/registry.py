"""The registry, through skopeo: it brings logins (credential helpers), private CAs and proxies, and keeps digests.

A refused connection or a server's failure is tried again within the settings' time; what will not change by waiting
(not there, not allowed, a wrong certificate) is an error at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hardening.foundation import process
from hardening.foundation.environment import REGISTRY
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, nearest
from hardening.foundation.hashing import canonical, digest
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Settings
from images.artifact import Descriptor
from images.publication.login import authfile

REF_NAME = "org.opencontainers.image.ref.name"
# The registry's own words. A bare 404, or a helper that is "not found", says nothing about what the registry holds.
MISSING = re.compile(r"manifest unknown|name unknown|repository name not known|unknown: artifact \S+ not found", re.I)
CREDENTIALS = re.compile(r"getting credentials|docker-credential-", re.I)
DENIED = re.compile(r"unauthorized|authentication required|denied|forbidden|invalid username", re.I)
STRANGER = re.compile(r"status\W*(code)?\W*404", re.I)
CERTIFICATE = re.compile(r"x509|certificate|HTTP response to HTTPS", re.I)
FULL = re.compile(r"no space left|disk quota", re.I)
PERMANENT = (FULL, CREDENTIALS, DENIED, CERTIFICATE, MISSING, STRANGER)
ANSWERS = (
    (FULL, "a disk is full", "free space on the registry's or on this machine"),
    (
        CREDENTIALS,
        "the login for the registry {} cannot be read",
        "install the credential helper that your login names, or log in anew: docker login {}",
    ),
    (
        DENIED,
        "the registry {} does not allow it",
        "log in with `docker login {}`; a credential helper keeps the password",
    ),
    (
        CERTIFICATE,
        "the registry {} cannot be trusted",
        "set registry.ca_file to the private CA's PEM, or registry.insecure for plain HTTP",
    ),
    (
        STRANGER,
        "{} answers 404, and not in a registry's words",
        "is registry.address right? What answers there, such as a proxy or a website, is no registry",
    ),
)
UNREACHABLE = [
    "the registry {} cannot be reached or failed",
    "is the registry up, and registry.address right? ./goldsmith doctor",
]
TIMEOUT_SECONDS = 1800


class NotFoundError(ContentError):
    """What was asked for is not in the registry."""


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as the registry keeps it."""

    digest: str
    media_type: str
    size: int
    data: dict[str, Any]

    @property
    def descriptor(self) -> Descriptor:
        """How another manifest refers to this one."""
        return Descriptor(self.media_type, self.digest, self.size)

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return dict(self.data.get("annotations") or {})

    @property
    def is_index(self) -> bool:
        """Whether it is an index over manifests."""
        return "manifests" in self.data


class Registry:
    """One registry address; repositories are `address/name`, references `repository:tag` or `repository@digest`."""

    def __init__(self, address: str, settings: Settings) -> None:
        self.address = address.rstrip("/")
        self.settings = settings
        self._plain = settings.registry.insecure or is_loopback(self.address)

    def repository(self, name: str) -> str:
        """The repository of a definition."""
        return f"{self.address}/{name}"

    def find(self, reference: str) -> Manifest | None:
        """The manifest at `reference`, or None where there is none."""
        try:
            text = self._skopeo(["inspect", "--raw"], [f"docker://{reference}"], "tls-verify").stdout
        except NotFoundError:
            return None
        data = json.loads(text)
        found = digest(text)
        if "@" in reference and found != reference.partition("@")[2]:
            raise OutsideError(f"the registry gave {found} for {reference}", hint="is something between us and it?")
        kind = data.get("mediaType") or data.get("schemaVersion", "")
        return Manifest(found, str(kind), len(text.encode()), data)

    def get(self, reference: str) -> Manifest:
        """The manifest at `reference`. Raises NotFoundError that suggests the nearest tags."""
        if found := self.find(reference):
            return found
        repository, wanted = split(reference)
        tags = self.tags(repository)
        if not tags:
            hint = "./goldsmith image.list shows what is published"
            raise NotFoundError(f"nothing is published as {repository}", hint=hint)
        raise NotFoundError(f"{reference} is not in the registry", hint=nearest(wanted, tags))

    def tags(self, repository: str) -> tuple[str, ...]:
        """The repository's tags, sorted; none where it does not exist."""
        try:
            text = self._skopeo(["list-tags"], [f"docker://{repository}"], "tls-verify").stdout
        except NotFoundError:
            return ()
        return tuple(sorted(json.loads(text)["Tags"] or ()))

    def push(self, layout: Path, source: str, destination: str, *, index_only: bool = False) -> None:
        """Copy what the layout names `source` to `destination`, bytes unchanged. An index's children go with it."""
        children = ["--multi-arch", "index-only"] if index_only else ["--all"]
        self._copy(children, f"oci:{layout}:{source}", f"docker://{destination}", "dest-tls-verify")

    def pull(self, reference: str, layout: Path, name: str) -> None:
        """Copy `reference` and its children into the OCI layout under `name`."""
        self._copy(["--all"], f"docker://{reference}", f"oci:{layout}:{name}", "src-tls-verify")

    def download(self, reference: str, directory: Path) -> None:
        """Put the one manifest at `reference` and its blobs into `directory`, whatever their media types, unchanged."""
        self._copy([], f"docker://{reference}", f"dir:{directory}", "src-tls-verify")

    def tag(self, repository: str, index_digest: str, tag: str) -> None:
        """Let `tag` point at an index that is in the repository."""
        source, destination = f"docker://{repository}@{index_digest}", f"docker://{repository}:{tag}"
        self._copy(["--multi-arch", "index-only"], source, destination, "src-tls-verify", "dest-tls-verify")

    def delete(self, repository: str, manifest_digest: str) -> bool:
        """Remove a manifest, and the tags that point to it; False when it was not there."""
        reference = f"{repository}@{manifest_digest}"
        if self.find(reference) is None:  # asked first: a deletion's own 404 does not tell whose it is
            return False
        self._skopeo(["delete"], [f"docker://{reference}"], "tls-verify")
        return True

    def _copy(self, options: Sequence[str], source: str, destination: str, *verify: str) -> None:
        self._skopeo(["copy", "--quiet", "--preserve-digests", *options], [source, destination], *verify)

    def _skopeo(self, verb: Sequence[str], operands: Sequence[str], *verify: str) -> process.Completed:
        """Run skopeo; `verify` names its TLS options, which depend on the verb."""
        directory = self._certificates()
        tls = [f"--{option}=false" for option in verify if self._plain]
        prefixes = [option.removesuffix("tls-verify") for option in verify]
        certificates = [f"--{prefix}cert-dir={directory}" for prefix in prefixes if directory]
        own = authfile(self.settings, self.address)
        login = ["--authfile", str(own)] if own else []
        argv = ["skopeo", *verb, *login, *tls, *certificates, *operands]
        done = retrying(lambda: self._attempt(argv), within=self.settings.retry_for)
        if done.status:
            raise explain(done, self.address)
        return done

    def _attempt(self, argv: Sequence[str]) -> process.Completed:
        done = process.run(argv, passes=REGISTRY, ok=range(256), timeout=TIMEOUT_SECONDS, hint="apt-get install skopeo")
        if done.status and not any(reason.search(done.stderr) for reason in PERMANENT):
            raise explain(done, self.address)
        return done

    def _certificates(self) -> Path | None:
        """A directory that holds the private CA under the name skopeo wants, if there is one."""
        ca_file = self.settings.registry.ca_file
        if not ca_file:
            return None
        try:
            authority = ca_file.read_bytes()
        except OSError as error:
            raise ContentError(f"cannot be read: {error}", file="goldsmith.toml", key="registry.ca_file") from None
        directory = self.settings.state_dir / "ca" / digest(authority).removeprefix("sha256:")[:12]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.crt").write_bytes(authority)
        return directory


def explain(done: process.Completed, address: str) -> GoldsmithError:
    """What a failed skopeo means for the person who reads it."""
    evidence, host = done.stderr.strip()[-1000:], address.partition("/")[0]
    if MISSING.search(evidence):
        return NotFoundError("not in the registry", evidence=evidence)
    what, hint = next((answer for reason, *answer in ANSWERS if reason.search(evidence)), UNREACHABLE)
    return OutsideError(what.format(address), hint=hint.format(host), evidence=evidence)


def write_layout(directory: Path, roots: Sequence[Descriptor]) -> Path:
    """Make `directory`, which holds blobs, an OCI layout that names each root by its digest's hex."""
    entries = [
        {
            "mediaType": root.media_type,
            "digest": root.digest,
            "size": root.size,
            "annotations": {REF_NAME: root.digest.removeprefix("sha256:")},
        }
        for root in roots
    ]
    (directory / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": entries}))
    (directory / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
    return directory


def split(reference: str) -> tuple[str, str]:
    """A reference as its repository and its tag or digest; the second is empty where there is none."""
    if "@" in reference:
        repository, _, wanted = reference.partition("@")
        return repository, wanted
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag


def is_loopback(address: str) -> bool:
    """Whether a registry address is on this machine, where plain HTTP is spoken."""
    host = address.partition("/")[0]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
