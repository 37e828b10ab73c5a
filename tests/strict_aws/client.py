"""What tests hold in their hands: boto3 clients at the emulator, faults, the clock, and the log of calls."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from tests.strict_aws import direct
from tests.strict_aws.blocks import BLOCK
from tests.strict_aws.faults import Fault

ACCOUNT, REGION = "123456789012", "eu-central-1"
READ_AT_ONCE = 64  # blocks: 32 MiB


class StrictAws:
    """A running emulator at `url`; `pid` where it is a process of its own."""

    def __init__(self, url: str, pid: int = 0) -> None:
        self.url, self.pid = url, pid
        self._session: Any = None
        self._clients: dict[Any, Any] = {}

    def client(self, service: str, region: str = REGION, account: str = ACCOUNT, **config: Any) -> Any:
        """A boto3 client that asks once only, unless `config` says otherwise."""
        asked = (service, region, account, repr(config))
        if asked not in self._clients:
            self._clients[asked] = self._made(service, region, account, config)
        return self._clients[asked]

    def _made(self, service: str, region: str, account: str, config: dict[str, Any]) -> Any:
        import boto3
        from botocore.config import Config

        settings = {"retries": {"mode": "standard", "total_max_attempts": 1}, "max_pool_connections": 32, **config}
        self._session = self._session or boto3.session.Session()  # reading the models takes a while
        return self._session.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=account,
            aws_secret_access_key="secret",
            config=Config(**settings),
        )

    def environment(self, account: str = ACCOUNT, region: str = REGION) -> dict[str, str]:
        """What a process needs to talk to the emulator as `account`."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": account,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def reset(self) -> None:
        """As freshly started."""
        self._ask("reset", {})

    def faults(self, *rules: Fault, seed: int | str = 0) -> None:
        """From now on these faults strike, in the place of all before; none: nothing goes wrong."""
        self._ask("faults", {"rules": [asdict(rule) for rule in rules], "seed": seed})

    @contextmanager
    def faulty(self, *rules: Fault, seed: int | str = 0) -> Iterator[None]:
        """These faults strike during the block."""
        self.faults(*rules, seed=seed)
        try:
            yield
        finally:
            self.faults()

    def calls(self, service: str = "", operation: str = "", since: int = 0, **same: Any) -> list[dict[str, Any]]:
        """The log: entries after number `since` with this service and operation, and `same` members (`effect=True`)."""
        wanted = {"service": service, "operation": operation}
        wanted = {name: value for name, value in wanted.items() if value} | same
        log: list[dict[str, Any]] = self._ask(f"calls/{since}")
        return [entry for entry in log if all(entry[name] == value for name, value in wanted.items())]

    def waits(self, seconds: float) -> None:
        """How long snapshots and copies stay pending."""
        self._ask("waits", {"seconds": seconds})

    def hold(self) -> None:
        """What starts now stays pending until `release`."""
        self._ask("waits", {"held": True})

    def release(self) -> None:
        self._ask("waits", {"held": False})

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock on."""
        self._ask("advance", {"seconds": seconds})

    def freeze(self) -> None:
        """Until the reset, the emulator's clock moves by `advance` only: what is pending stays so."""
        self._ask("freeze", {})

    def organization(self, account: str, *arns: str) -> None:
        """`account` belongs to these organisations and units."""
        self._ask("organization", {account: " ".join(arns)})

    def members(self, states: Mapping[str, str], managing: str = ACCOUNT) -> None:
        """The accounts of the organisation with their states; `managing` may list them."""
        self._ask("members", {"states": states, "managing": [managing]})

    def guard(self, role: str, external_id: str) -> None:
        """Let the role's trust policy ask for this ExternalId."""
        self._ask("external_ids", {role: external_id})

    def enforce(self, policies: Mapping[str, Any]) -> None:
        """From now on allow us only what the policies of an account do; without any account, everything."""
        self._ask("policies", policies)

    def asked(self) -> list[dict[str, Any]]:
        """Every right that was asked for while policies were enforced: edge, action, resource, context, account."""
        return list(self._ask("asked"))

    def limit_copies(self, at_once: int) -> None:
        self._ask("limits", {"copies_at_once": at_once})

    def limit_pages(self, at_most: int) -> None:
        """No page of a listing is longer, whatever was asked for."""
        self._ask("limits", {"page_at_most": at_most})

    def fail(self, resource: str) -> None:
        """Let an image or a snapshot end as failed, or error."""
        self._ask("fail", {"id": resource})

    def takes(self, **seconds: float) -> None:
        """How long things take that change of themselves, by the names in `timeline.TAKES`."""
        self._ask("takes", seconds)

    def ail(self, name: str, *kinds: str, after: float = 0) -> None:
        """What of `timeline.AILMENTS` goes wrong with the instance `name`, or instances of the image `name`, so many
        seconds `after` their start (of a target: after its registration)."""
        self._ask("ail", {"id": name, "kinds": kinds, "after": after})

    def digests(self, **named: str) -> None:
        """What tags of registries name from now on: the digests of tasks that start, by image reference."""
        self._ask("digests", named)

    def cure(self, name: str) -> None:
        """All is well again with what `ail` named."""
        self._ask("cure", {"id": name})

    def snapshots(self) -> dict[str, dict[str, Any]]:
        """All snapshots of all accounts and regions, with their blocks' digests (hexadecimal) by index (as text)."""
        return dict(self._ask("snapshots"))

    def images(self) -> dict[str, dict[str, Any]]:
        """All images of all accounts and regions."""
        return dict(self._ask("images"))

    def read(self, snapshot: str, size_bytes: int) -> Iterator[bytes]:
        """The first `size_bytes` of a volume made from the snapshot, block by block."""
        count = -(-size_bytes // BLOCK)
        for first in range(0, count, READ_AT_ONCE):
            with self._open(f"disk/{snapshot}/{first}/{min(READ_AT_ONCE, count - first)}") as answer:
                content = memoryview(answer.read())[: size_bytes - first * BLOCK]
            yield from (bytes(content[start : start + BLOCK]) for start in range(0, len(content), BLOCK))

    def _ask(self, path: str, body: Any = None) -> Any:
        with self._open(path, None if body is None else json.dumps(body).encode()) as answer:
            return json.load(answer)

    def _open(self, path: str, body: bytes | None = None) -> Any:
        said = direct.steered(f"{self.url}/_strict/{path}", body)
        if said is not None:
            return io.BytesIO(said)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(f"{self.url}/_strict/{path}", body, timeout=60)
