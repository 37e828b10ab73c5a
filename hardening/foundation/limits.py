"""Limits on everything accepted from outside, each with the name that its error shows, and what counts by them.

What a feed, a registry, a mirror or a base image sends may be written by a stranger: a few bytes that unpack to
gigabytes, a million members, names without end. All of it is read piece by piece, counted, and refused at the limit.
Together the limits keep the memory that any such input takes under 300 MB, which test_limits.py measures. Pure.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import IO, Any

from hardening.foundation.errors import OutsideError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CHUNK = MIB
"""How much is read at a time, in bytes."""


@dataclass(frozen=True)
class Limit:
    """A limit: its name, the maximum, and its unit."""

    name: str
    most: int
    of: str = "bytes"

    def __str__(self) -> str:
        return f"the limit {self.name} ({self.most:,} {self.of})"

    def require(self, amount: int, what: str) -> None:
        """Raises OutsideError, which names the limit, where `what` has or is more than it accepts."""
        if amount > self.most:
            raise self.exceeded(what)

    def exceeded(self, what: str) -> OutsideError:
        """The error for `what`, which is over the limit."""
        return OutsideError(
            f"{what} exceeds {self}",
            hint="use another source; if it is valid, raise the limit in hardening/foundation/limits.py",
        )


FEED_BYTES = Limit("feed.bytes", 64 * MIB)
FEED_TEXT = Limit("feed.text", 64 * MIB, "bytes after decompression")
TRACKER_BYTES = Limit("tracker.bytes", 256 * MIB)  # as JSON; 80 million in 2026, a tenth of that when packed
TRACKER_TEXT = Limit("tracker.text", 512 * MIB, "bytes after decompression")
TRACKER_ENTRIES = Limit("tracker.entries", 2_000_000, "pairs of a source package and a vulnerability")
TRACKER_VALUES = Limit("tracker.values", 4096, "values of one entry")
OSV_BYTES = Limit("osv.bytes", 512 * MIB)
OSV_TEXT = Limit("osv.text", 2 * GIB, "bytes after decompression")
OSV_NAMES = Limit("osv.names", 16 * MIB, "bytes of the list of names in the archive")
EPSS_LINES = Limit("epss.lines", 2_000_000, "lines")
FEED_LINE = Limit("feed.line", 64 * KIB, "bytes of one line")
FEED_ARTIFACT = Limit("feed.artifact", GIB, "bytes of all files of one artifact")  # one may hold every feed
TRIVY_FILE = Limit("trivy.file", 4 * GIB, "bytes of one file of trivy's database")
FEED_SECONDS = Limit("feed.seconds", 300, "seconds for the whole download")
FEED_REDIRECTS = Limit("feed.redirects", 5, "redirects")

REVISION_BYTES = Limit("content.revision", 256 * MIB, "bytes of content in one revision")
REVISION_FILES = Limit("content.revision-files", 50_000, "files of content in one revision")
REBUILT_ENTRIES = Limit(
    "rebuilt.entries", 1_000_000, "packages of one architecture; Debian's releases have 70,000 each"
)
REBUILT_VALUES = Limit("rebuilt.values", 256, "keys and values of one package")

JSON_BYTES = Limit("json.bytes", 4 * MIB)  # what registries accept as a manifest
JSON_DEPTH = Limit("json.depth", 64, "levels of lists and objects in each other")
JSON_VALUES = Limit("json.values", 1_000_000, "values of one document; a large machine's SBOM has a tenth of it")
SMALL_FILE = Limit("image.small-file", 16 * MIB, "bytes of one text file such as os-release or dpkg's status")

KUBECONFIG_BYTES = Limit("kubeconfig.bytes", MIB)
KUBECONFIG_FILE = Limit("kubeconfig.file", 64 * KIB, "bytes of one file that a kubeconfig names")
KUBERNETES_SECONDS = Limit("kubernetes.seconds", 60, "seconds for one answer of an API server")
KUBERNETES_LIST = Limit("kubernetes.list", 128 * MIB, "bytes of all pages of one list")  # some 15,000 pods
KUBERNETES_PAGES = Limit("kubernetes.pages", 2_000, "pages of one list")

IAM_PAGES = Limit("iam.pages", 400, "pages of what IAM shows of one account")
IAM_PRINCIPALS = Limit("iam.principals", 20_000, "users, groups, roles and policies of one account")
IAM_DOCUMENT = Limit("iam.document", 256 * KIB, "characters of one policy; AWS takes 10,240")
IAM_STATEMENTS = Limit("iam.statements", 5_000, "statements of one principal or policy")
IAM_PATTERN = Limit("iam.pattern", 2_048, "characters of one action, resource or value")

ENGINE_ANSWER = Limit("engine.answer", 64 * MIB, "bytes of one answer of an engine")  # a list of some 30,000 containers
AWS_PAGES = Limit("aws.pages", 2_000, "pages of one list")
AWS_ITEMS = Limit("aws.items", 2_000_000, "items of one list")
CONTAINER_ANSWER = Limit("container.answer", 2 * MIB, "bytes of what an engine tells of its files or processes")

BOOT_OUTPUT = Limit("boot.output", 64 * MIB, "bytes of what a machine that is tried says")

HOST_ANSWER = Limit("host.answer", 16 * MIB, "bytes of what a host tells that is checked")
HOST_SECONDS = Limit("host.seconds", 1800, "seconds for all checks of a host")

REGISTRY_SECONDS = Limit("registry.seconds", 120, "seconds for one question to a registry")
HEAD_SECONDS = Limit("registry.head-seconds", 30, "seconds for the digest of one tag")
MANIFEST_BYTES = Limit("registry.manifest", 4 * MIB, "bytes of a manifest, as skopeo has it too")
TOKEN_BYTES = Limit("registry.token", 64 * KIB, "bytes of an answer that holds a token")
REGISTRY_COPY_SECONDS = Limit("registry.copy-seconds", 1800, "seconds for one image from or to a registry")
REGISTRY_MEMORY = Limit("registry.memory", 256 * MIB, "bytes that skopeo takes; an image needs 50 MB")
ATTESTATIONS = Limit("registry.attestations", 128, "documents attached to one image")
ATTESTATION_BYTES = Limit("registry.attestation-bytes", 256 * MIB, "bytes of all documents attached to one image")
DOCUMENT_BYTES = Limit("document.bytes", 32 * MIB, "bytes of an attached document such as an SBOM")

WEBHOOK_BYTES = Limit("webhook.bytes", MIB)
WEBHOOK_ID = Limit("webhook.id", 200, "characters of a call's id")
WEBHOOK_SECONDS = Limit("webhook.seconds", 10, "seconds for one call to arrive")
FORGE_BYTES = Limit("forge.bytes", 4 * MIB, "bytes of one answer of GitHub; a hundred deployments have 0.4 million")
FORGE_SECONDS = Limit("forge.seconds", 30, "seconds for one answer of GitHub")
SERVE_CALLS = Limit("serve.calls", 64, "calls at once")
SERVE_HEAD_SECONDS = Limit("serve.head-seconds", 10, "seconds until a connection has sent the head of its next call")
SERVE_STREAMS = Limit("serve.streams", 32, "pages that are told of changes at once; the other calls are for all else")
SERVE_STREAM_SECONDS = Limit("serve.stream-seconds", 900, "seconds for one stream of changes; pages ask again then")

INDEX_BYTES = Limit("index.bytes", 512 * MIB, "bytes of one file of a package index; Debian's main has 55 million")
BUILD_SECONDS = Limit("build.seconds", 6 * 3600, "seconds for one call of a tool that builds")
STEP_MEMORY = Limit("step.memory", 8 * GIB, "bytes of data for each process of a RUN step, or of apt in a child")
APT_SECONDS = Limit("apt.seconds", 1800, "seconds for one call of apt")
APT_MEMORY = Limit("apt.memory", GIB, "bytes of addresses that one program of apt takes")

CONTENT_TEXT = Limit("content.text", MIB, "bytes of one file that people write: TOML, scripts, templates")
CONTENT_DEPTH = Limit("content.depth", 64, "folders below each other in a definition's folder")
CONTENT_FILE = Limit("content.file", GIB, "bytes of one file that goes into an image with its definition")
TEMPLATE_WORK = Limit("template.work", 1 << 18, "characters and rounds of loops in one rendering")

CHECK_MEMORY = Limit("check.memory", GIB, "bytes of data for each process of a control's script")
CHECK_ANSWER = Limit("check.answer", MIB, "bytes of what one check says")
SCRIPT_SECONDS = Limit("script.seconds", 300, "seconds for a script that changes a tree")

SCANNER_SECONDS = Limit("scanner.seconds", 600, "seconds")
SCANNER_MEMORY = Limit("scanner.memory", 3 * GIB, "bytes of data for each process; syft takes 170 MB")
SCANNER_FILE = Limit("scanner.file", 2 * GIB, "bytes of each file that a scanner writes")
SCANNER_ANSWER = Limit("scanner.answer", 64 * MIB, "bytes of what a scanner says")

LOG_FILE = Limit("log.file", 16 * MIB, "bytes of the log of one flow; what comes later is not written")
LOG_TAIL = Limit("log.tail", 64 * KIB, "characters of its end, which are kept in the database too")

IMAGE_BYTES = Limit("image.bytes", 16 * GIB, "bytes of all layers after decompression")
IMAGE_MEMBERS = Limit("image.members", 1_000_000, "members of all layers")
IMAGE_LAYERS = Limit("image.layers", 128, "layers")
LAYER_MEMBERS = Limit("layer.members", 200_000, "members")
LAYER_NAMES = Limit("layer.names", 32 * MIB, "bytes of all paths and link targets together")
LAYER_PATH = Limit("layer.path", 4096, "bytes of one path or link target")
LAYER_DEPTH = Limit("layer.depth", 128, "directories in each other")
LAYER_HEADER = Limit("layer.header", 64 * KIB, "bytes of extended headers for one member")
LAYER_WINDOW = Limit("layer.window", 64 * MIB, "bytes of the decompressor's window")
LAYER_RATIO = Limit("layer.ratio", 250, "times the compressed size")
LAYER_RATIO_FROM = 256 * MIB
"""Up to this many bytes any ratio is accepted: a small layer of zeros is harmless."""


class Meter:
    """Counts what `what` takes by one limit."""

    def __init__(self, limit: Limit, what: str) -> None:
        self.limit = limit
        self.what = what
        self.used = 0

    def add(self, amount: int) -> None:
        """Count `amount` more. Raises OutsideError, which names the limit, where that is too much."""
        self.used += amount
        self.limit.require(self.used, self.what)


class Counted:
    """A binary stream whose bytes the meters count while it is read. It never reads more at once than CHUNK."""

    def __init__(self, stream: IO[bytes], *meters: Meter) -> None:
        self._stream = stream
        self._meters = meters

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, and at most CHUNK."""
        data = self._stream.read(CHUNK if size < 0 else min(size, CHUNK))
        for meter in self._meters:
            meter.add(len(data))
        return data


def read_all(stream: IO[bytes], limit: Limit, what: str) -> bytes:
    """All that `stream` still holds. Raises OutsideError, which names the limit, where that is too much."""
    return b"".join(iter(Counted(stream, Meter(limit, what)).read, b""))


def parse_json(data: bytes | str, what: str) -> Any:
    """The JSON value in `data`. Raises OutsideError for what is none, too large, too deep, or names a key twice."""
    JSON_BYTES.require(len(data), what)
    try:
        value = strict_json(data)
    except RecursionError:
        raise JSON_DEPTH.exceeded(what) from None
    except ValueError as error:
        raise OutsideError(f"{what} is not JSON: {error}") from None
    _require_shallow(value, what)
    return value


HALF = re.compile(r"\\u[dD][89a-fA-F]")


def strict_json(data: bytes | str) -> Any:
    """The JSON value in `data`. Raises ValueError also for what names a key twice, and for text with half a character
    (a lone surrogate), which no file and no database takes; RecursionError where it is too deep.
    """
    value = json.loads(data, object_pairs_hook=_keys_once)
    if HALF.search(data if isinstance(data, str) else data.decode(errors="replace")):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of `pairs`. A key that stands twice means one thing to us and may mean another to the next reader."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"duplicate key: {name!r}")
        found[name] = value
    return found


def _require_shallow(value: Any, what: str) -> None:
    """Raises OutsideError where lists and objects lie too deep in each other for the code that walks them."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(JSON_DEPTH.most):
        level = [
            item
            for one in level
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise JSON_DEPTH.exceeded(what)
