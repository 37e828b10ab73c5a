"""The registry, through skopeo: it brings logins (credential helpers), private CAs and proxies, and keeps digests.

A refused connection or a server's failure is tried again within the settings' time; what will not change by waiting
(not there, not allowed, a wrong certificate) is an error at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hardening.foundation import limits, process
from hardening.foundation.errors import ContentError, MalformedError, OutsideError, nearest
from hardening.foundation.hashing import digest, hex_of
from hardening.foundation.process import REGISTRY
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Settings
from images.artifact import Descriptor
from images.registry import answers
from images.registry.answers import Image, Index, Listed, NotFoundError, loaded, parsed
from images.registry.http import NOT_FOUND, OK, RegistryHttp
from images.registry.login import authfile, log_file
from images.registry.references import REPOSITORY, TAG, host_of, speaks_plain_http, split
from images.store.fields import require_one_reading
from images.store.oci import as_layout

REF_NAME = "org.opencontainers.image.ref.name"
COPY_SECONDS, ASK_SECONDS = limits.REGISTRY_COPY_SECONDS.most, limits.REGISTRY_SECONDS.most
# Its collector of garbage took a fifth of the processor time of so short a run; half of what it may take is enough.
FRUGAL = {"GOGC": "400", "GOMEMLIMIT": f"{limits.REGISTRY_MEMORY.most // 2}B"}


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
        """Its annotations. Raises MalformedError, as all below do."""
        return parsed(answers.Noted, self.data, self.digest).annotations

    @property
    def is_index(self) -> bool:
        """Whether it is an index over manifests."""
        return "manifests" in self.data

    @property
    def index(self) -> Index:
        """What it lists."""
        return parsed(Index, self.data, self.digest)

    @property
    def image(self) -> Image:
        """What it is made of."""
        return parsed(Image, self.data, self.digest)

    def content(self, platform: str) -> str:
        """The digest of what an engine of the platform runs: the one child for it, or the manifest itself."""
        return answers.child_for(self.index, platform, self.digest).digest if self.is_index else self.digest


class RegistryClient:
    """One registry address; repositories are `address/name`, references `repository:tag` or `repository@digest`.

    `own`: it is the one that we publish to, and no mirror of another one stands in its place.
    """

    def __init__(self, address: str, settings: Settings, *, own: bool = False) -> None:
        self.address, self.own = address.rstrip("/"), own
        self.settings = settings
        self._http = RegistryHttp(settings)

    @property
    def prefix(self) -> str:
        """Our own annotations' prefix."""
        return self.settings.annotation_prefix

    def repository(self, name: str) -> str:
        """The repository of a definition."""
        return f"{self.address}/{name}"

    def find(self, reference: str) -> Manifest | None:
        """The manifest at `reference`, or None where there is none. Raises OutsideError for one of another digest."""
        wanted = reference.partition("@")[2]
        if wanted:
            hex_of(wanted)
        try:
            text = self._raw(reference)
        except NotFoundError:
            return None
        found = _as_asked(text, wanted, reference)
        data = loaded(text, reference)
        require_one_reading(data, reference)
        kind = data.get("mediaType") or data.get("schemaVersion", "")
        return Manifest(found, str(kind), len(text.encode()), data)

    def named_by(self, tag: str) -> str:
        """The digest that a tag names, by one HEAD; empty where there is none, or the registry does not say it so.

        Raises OutsideError where it does not answer: no other way is tried.
        """
        answer = self._http.head(_sound(tag))
        if answer.status_code not in (OK, NOT_FOUND):
            raise OutsideError(f"{self.address} answers {answer.status_code} for {tag}")
        return answer.headers.get("Docker-Content-Digest", "") if answer.status_code == OK else ""

    def configuration(self, reference: str) -> dict[str, Any]:
        """The configuration of what an engine runs of the image at `reference`, as it was pushed, and hashed.

        `--raw` keeps what OCI knows no word for, such as a health check. Raises NotFoundError, MalformedError.
        """
        found, what = self.get(reference), f"the configuration of {reference}"
        exact = f"{split(reference)[0]}@{found.content(self.settings.platform)}"
        image = self.get(exact).image if found.is_index else found.image
        text = self._ask("inspect", exact, "--config", "--raw")
        _as_asked(text, image.config.digest, what)
        config = loaded(text, what)
        require_one_reading(config, what)
        return config

    def diff_ids(self, reference: str) -> tuple[str, ...]:
        """The unpacked layers of what an engine runs of the image, lowest first. Raises as `configuration` does."""
        found = self.configuration(reference)
        return parsed(answers.Config, found, f"the configuration of {reference}").diff_ids

    def get(self, reference: str) -> Manifest:
        """The manifest at `reference`. Raises NotFoundError that suggests the nearest tags."""
        if found := self.find(reference):
            return found
        repository, wanted = split(reference)
        tags = self.tags(repository)
        if not tags:
            publish = "./goldsmith image.publish NAME publishes one; ./goldsmith image.list shows what is published"
            host = repository.partition("/")[0]
            foreign = f"is the name right? if it is private, log in with `docker login {host}`"
            hint = publish if self.own else foreign
            raise NotFoundError(f"nothing is published as {repository}", hint=hint)
        raise NotFoundError(f"{reference} is not in the registry", hint=nearest(wanted, tags))

    def tags(self, repository: str) -> tuple[str, ...]:
        """The repository's tags, sorted; none where it does not exist."""
        try:
            text = self._ask("list-tags", repository)
        except NotFoundError:
            return ()
        return tuple(sorted(tag for tag in loaded(text, repository).get("Tags") or () if TAG.fullmatch(str(tag))))

    def push(self, layout: Path, source: str, destination: str, *, index_only: bool = False) -> None:
        """Copy what the layout names `source` to `destination`, bytes unchanged. An index's children go with it."""
        children = ["--multi-arch", "index-only"] if index_only else ["--all"]
        self._copy(children, f"oci:{layout}:{source}", f"docker://{destination}")

    def push_root(self, directory: Path, root: Descriptor | Listed, destination: str, *, index_only: bool) -> None:
        """Copy one of the blobs in `directory`, a manifest or an index, to `destination`, as `push` does."""
        name = root.digest.removeprefix("sha256:")
        layout = as_layout(directory, Descriptor(root.media_type, root.digest, root.size), {REF_NAME: name})
        self.push(layout, name, destination, index_only=index_only)

    def pull(self, reference: str, layout: Path, name: str) -> None:
        """Copy `reference` and its children into the OCI layout under `name`; no blob is larger than a document."""
        self._copy(["--all"], f"docker://{reference}", f"oci:{layout}:{name}", largest=limits.DOCUMENT_BYTES.most)

    def document(self, repository: str, manifest_digest: str) -> dict[str, bytes] | None:
        """An attached document's manifest and its blob by HTTP, by their digests. None where it has to be
        pulled, which then says what is wrong: another registry, one that needs more than a request, or other bytes.

        Raises NotFoundError, and MalformedError where it is not a manifest.
        """
        reference = f"{repository}@{manifest_digest}"
        text = self._http.manifest(reference) if self._is_own(reference) else None
        if text is None or digest(text) != manifest_digest:
            return None
        layers, found = parsed(Image, loaded(text, reference), reference).layers, {manifest_digest: text.encode()}
        if len(layers) != 1:
            return found
        name = layers[0].digest
        blob = self._http.blob(f"{repository}@{name}", limits.DOCUMENT_BYTES)
        return None if blob is None or digest(blob) != name else {**found, name: blob}

    def download(self, reference: str, directory: Path) -> None:
        """Put the one manifest at `reference` and its blobs into `directory`, whatever their media types, unchanged.

        Raises OutsideError where a blob is larger than the manifest says, and where that is more than any image has.
        """
        image = self.get(reference).image
        sizes = [part.size for part in (image.config, *image.layers)]
        limits.IMAGE_LAYERS.require(len(image.layers), reference)
        # Unpacked it is more: what is more than that already is not fetched.
        limits.IMAGE_BYTES.require(sum(sizes), reference)
        self._copy([], f"docker://{reference}", f"dir:{directory}", largest=max(*sizes, 4 << 20))

    def tag(self, repository: str, index_digest: str, tag: str) -> None:
        """Let `tag` point at an index that is in the repository."""
        source, destination = f"docker://{repository}@{index_digest}", f"docker://{repository}:{tag}"
        self._copy(["--multi-arch", "index-only"], source, destination)

    def delete(self, repository: str, manifest_digest: str) -> None:
        """Remove a manifest, if it is there, and the tags that point to it."""
        reference = f"{repository}@{manifest_digest}"
        try:
            self._ask("delete", reference)
        except NotFoundError as error:
            if self.find(reference):  # asked, for a deletion's own 404 does not tell whose it is
                what = f"the registry {_address(reference, self.address)} has {reference}, and does not remove it"
                raise OutsideError(what, hint="does it allow deletions?", evidence=error.evidence) from None

    def _raw(self, reference: str) -> str:
        """A manifest of our own registry by HTTP, which costs a twentieth of a process; what that does not get, skopeo
        asks for: it knows mirrors, tries again, and its errors say what is wrong.
        """
        text = self._http.manifest(reference) if self._is_own(reference) else None
        return self._ask("inspect", reference, "--raw") if text is None else text

    def _is_own(self, reference: str) -> bool:
        return self.own and host_of(_sound(reference)) == host_of(self.address)

    def _ask(self, verb: str, reference: str, *options: str) -> str:
        """What skopeo prints about one reference. Raises MalformedError for what is no repository's name."""
        argv = [verb, *options, *self._access(_sound(reference), ""), f"docker://{reference}"]
        return self._skopeo(argv, (reference,), ASK_SECONDS, limits.DOCUMENT_BYTES.most if verb != "delete" else 0)

    def _copy(self, options: Sequence[str], source: str, destination: str, largest: int = 0) -> None:
        sides = {"src-": source, "dest-": destination}
        references = {side: told.removeprefix("docker://") for side, told in sides.items() if "docker://" in told}
        access = [option for side, reference in references.items() for option in self._access(reference, side)]
        argv = ["copy", "--quiet", "--preserve-digests", *options, *access, source, destination]
        self._skopeo(argv, tuple(references.values()), COPY_SECONDS, largest)

    def _access(self, reference: str, side: str) -> list[str]:
        """The options that say how one side of a command is trusted, and with which login it is reached."""
        directory = self._certificates()
        plain = [f"--{side}tls-verify=false"] if self._plain(reference) else []
        own = authfile(self.settings, reference)
        login = [f"--{side}authfile={own}"] if own else []
        return [*login, *plain, *([f"--{side}cert-dir={directory}"] if directory else [])]

    def _plain(self, reference: str) -> bool:
        return speaks_plain_http(self.settings, reference)

    def _skopeo(self, argv: Sequence[str], references: Sequence[str], seconds: float, largest: int = 0) -> str:
        """What skopeo prints. With `largest`, its memory is bounded, and no file that it writes has more bytes."""
        command = ["skopeo", *argv]
        if largest and process.which("skopeo"):
            command = ["prlimit", f"--data={limits.REGISTRY_MEMORY.most}", f"--fsize={largest}", *command]
        plain = any(map(self._plain, references))
        env = FRUGAL | ({} if plain else dict.fromkeys(("HTTP_PROXY", "http_proxy"), answers.NO_PLAIN_HTTP))
        address = _address(references[0], self.address)
        own = log_file(self.settings) if any(authfile(self.settings, one) for one in references) else None
        done = retrying(lambda: _attempt(command, env, seconds, address, own), within=self.settings.retry_for)
        if done.status:
            raise answers.explain(done.stderr, address)
        return done.stdout

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


def _attempt(
    argv: Sequence[str], env: Mapping[str, str], seconds: float, address: str, log: Path | None
) -> process.Completed:
    """One run; raises OutsideError for what may be over the next time.

    The embedded registry answers 404 or 500 where its disk is full: what it wrote into its `log` meanwhile says so.
    """
    before = log.stat().st_size if log and log.exists() else 0
    done = process.run(argv, passes=REGISTRY, ok=range(256), env=env, timeout=seconds, hint="apt-get install skopeo")
    said = log.read_bytes()[before:].decode(errors="replace") if done.status and log and log.exists() else ""
    if full := answers.FULL.search(said):
        done = replace(done, stderr=f"{done.stderr.rstrip()}\n{full[0]}")
    if done.status and not any(reason.search(done.stderr) for reason in answers.PERMANENT):
        raise answers.explain(done.stderr, address)
    return done


def _sound(reference: str) -> str:
    """The reference. Raises MalformedError where it does not begin with the name of a repository, or names no tag."""
    repository, wanted = split(reference)
    if not REPOSITORY.fullmatch(repository):
        raise MalformedError(f"{repository[:200]!r} is not the name of a repository", hint="who gave it?")
    if wanted and "@" not in reference and not TAG.fullmatch(wanted):
        raise MalformedError(f"{wanted[:200]!r} is not a tag", hint="who gave it?")
    return reference


def _as_asked(text: str, wanted: str, what: str) -> str:
    """The digest of what a registry gave. Raises OutsideError where another one was wanted."""
    found = digest(text)
    if wanted and found != wanted:
        raise MalformedError(f"the registry gave {found} for {what}", hint="is something between us and it?")
    return found


def _address(reference: str, own: str) -> str:
    """How the registry of a reference is called: our own by its whole address."""
    return own if host_of(reference) == host_of(own) else host_of(reference)
