"""Shared by every flow at AWS, opened once: settings, clients, clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Aws, Settings
from images.artifact import Artifact, Release
from images.aws.client import Client, Clients
from images.aws.model import MachineImage
from images.ledger import GONE, Ledger, Made
from images.machine.blocks import split
from images.store.oci import Store

if TYPE_CHECKING:
    from images.registry.client import RegistryClient


@dataclass(frozen=True)
class Cloud:
    """Settings, clients, ledger and store; `now` is the one clock reading of a flow, `actor` whom the audit names.

    `open_registry` opens where the evidence of releases stands; None where AWS alone is asked.
    """

    settings: Settings
    clients: Clients
    ledger: Ledger
    store: Store
    now: datetime
    actor: str
    open_registry: Callable[[], RegistryClient] | None = None

    @property
    def aws(self) -> Aws:
        """The `[aws]` table."""
        return self.settings.aws

    @property
    def home(self) -> str:
        """The region that images are uploaded to. Raises ContentError where none is set."""
        if not self.aws.region or not self.aws.account:
            raise _unset(self.aws)
        return self.aws.region

    @cached_property
    def registry(self) -> RegistryClient | None:
        """The registry that holds the evidence of releases."""
        return self.open_registry() if self.open_registry else None

    @property
    def prefix(self) -> str:
        """Our own tags' prefix."""
        return self.settings.annotation_prefix

    def repository(self, name: str) -> str:
        """Where the releases of a definition stand, in the ledger's words."""
        return f"aws/{self.aws.account}/{self.aws.name_prefix}/{name}"

    def client(self, service: str, region: str = "", account: str = "") -> Client:
        """The client of a service, by default at home."""
        return self.clients.client(service, region or self.home, account)

    def key(self, region: str) -> str:
        """The key that encrypts in a region; empty where images are not encrypted."""
        return self.aws.kms_keys.get(region, "") if self.aws.encrypted else ""

    def note(self, action: str, subject: str, detail: str = "") -> None:
        """Write an audit line."""
        self.ledger.audit(self.now, self.actor, action, subject, detail)

    def made(self, **wanted: str) -> tuple[Made, ...]:
        """The ledger's lines about what we made in the account, without what is gone."""
        return tuple(line for line in self.ledger.made(self.aws.account, **wanted) if line.state != GONE)

    def regions(self, **wanted: str) -> tuple[str, ...]:
        """Where there may be something of ours: by the settings, and by the ledger, which older settings filled."""
        known = sorted({line.region for line in self.made(**wanted)})
        return tuple(dict.fromkeys((self.home, *self.aws.all_regions, *known)))

    def record(self, of: Release | MachineImage, release: str, region: str, kind: str, token: str, **more: Any) -> Made:
        """Write a line about what is made of a release, and by which `token`; `more` as `Made` calls it."""
        return self.mark(Made(self.aws.account, region, kind, token, of.name, of.content, release, self.now), **more)

    def mark(self, line: Made, **changes: Any) -> Made:
        """Keep a line with some of its values changed."""
        changed = replace(line, **changes)
        self.ledger.record_made(changed)
        return changed

    def forget(self, **wanted: str) -> None:
        """Write down that something is not there any more."""
        for line in self.made(**wanted):
            self.mark(line, state=GONE)


EXAMPLES = {"account": "123456789012", "region": "eu-central-1"}


def _unset(aws: Aws) -> ContentError:
    """The error for settings that lead into no AWS: what is missing, where it belongs, and what to write."""
    missing = [name for name in EXAMPLES if not getattr(aws, name)]
    lines = ", ".join(f'{name} = "{EXAMPLES[name]}"' for name in missing)
    hint = f"write below [aws] in goldsmith.toml, with your own values: {lines}; docs/aws.md shows the whole table"
    key = f"aws.{missing[-1]}"
    return ContentError("it is not set, and nothing at AWS is read or made without it", file="goldsmith.toml", key=key,
                        hint=hint)  # fmt: skip


def machine_of(store: Store, artifact: Artifact) -> MachineImage:
    """The machine image that an artifact is. Raises OutsideError where the store has lost it."""
    config, blocks = store.config(artifact.digest), store.layers_of(artifact.digest)[0]
    architecture, size_bytes = artifact.platform.partition("/")[2], int(config["disk"]["size_bytes"])
    digests, disk = b"".join(split(store.blob(blocks.digest).read_bytes())), store.disk(blocks.digest)
    return MachineImage(
        name=artifact.name, content=artifact.digest, architecture=architecture, linear=blocks.digest, digests=digests,
        size_bytes=size_bytes, disk=disk,
    )  # fmt: skip
