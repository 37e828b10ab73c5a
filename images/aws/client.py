"""The one place that makes boto3 clients, and the one retry layer for them: botocore's standard mode, capped.

No exception of botocore leaves this module: what a service, the network or the credentials say becomes our own error:

RefusedError
└── DeniedError     the credentials lack a permission, which is named
OutsideError
├── UnreachableError    no answer from a region's endpoint
└── AwsError            the service answered with an error `code`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from threading import Lock
from typing import Any

from hardening.foundation.asking import require_wanted
from hardening.foundation.errors import (
    NOT_UNDERSTOOD,
    ContentError,
    LateError,
    MalformedError,
    OutsideError,
    RefusedError,
    SilentError,
    UsageError,
)
from hardening.foundation.limits import AWS_ITEMS, AWS_PAGES
from hardening.foundation.settings import Aws
from images.aws.permissions import LOOKING, NETWORK, REAPER, ResourcePattern, permit

PERMISSIONS = (
    permit("sts:AssumeRole", REAPER, *LOOKING, on=ResourcePattern("{role}", each="roles")),
    permit("sts:AssumeRole", NETWORK, on=ResourcePattern("{role}", each="network_roles")),
)

CONNECT_SECONDS = 5
LONGEST_PAUSE = 15.0
IAM_NAMES = dict.fromkeys(("elb", "elbv2"), "elasticloadbalancing")  # where boto3 has another name for a service
PAGES = {
    "ec2": ("MaxResults", 1000), "autoscaling": ("MaxRecords", 100), "elb": ("PageSize", 400),
    "elbv2": ("PageSize", 400), "organizations": ("MaxResults", 20), "ecs": ("maxResults", 100),
    "eks": ("maxResults", 100),
}  # fmt: skip
"""The longest page of a listing, by service: what EC2 gives without a size comes from a smaller token bucket."""
TOKENS = {
    **dict.fromkeys(IAM_NAMES, ("Marker", "NextMarker")), **dict.fromkeys(("ecs", "eks"), ("nextToken",) * 2),
    "iam": ("Marker", "Marker"),
}  # fmt: skip
"""What the token of the next page is called in a request and in an answer, where that is not NextToken."""
SHORTER = {
    "DescribeLaunchTemplates": 200, "DescribeLaunchTemplateVersions": 200, "DescribeReplaceRootVolumeTasks": 50,
    **dict.fromkeys(("DescribeImageUsageReports", "DescribeImageUsageReportEntries"), 0),
}  # fmt: skip
"""Listings whose pages are shorter; 0: how long they may be is not documented, and is not asked for."""
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "AuthorizationError"}
CREDENTIALS = {
    *("AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"),
    *("RequestExpired", "OptInRequired", "SignatureDoesNotMatch", "InvalidSignatureException"),
}


class DeniedError(RefusedError):
    """A permission is missing; `permission` as IAM policies name it."""

    def __init__(self, permission: str, account: str, region: str, evidence: str) -> None:
        hint = f"allow {permission} to the role or user; docs/aws.md lists what each task needs"
        why = f"AWS denies {permission} in {region} (account {account or 'of the credentials'})"
        super().__init__(why, evidence=evidence, hint=hint)
        self.permission = permission


class UnreachableError(SilentError):
    """A region's endpoint did not answer, even after retries."""

    def __init__(self, service: str, region: str, evidence: str) -> None:
        hint = "is the region's name right and enabled, the network up? AWS_ENDPOINT_URL leads elsewhere if set"
        super().__init__(f"{service} in {region} cannot be reached", evidence=evidence, hint=hint)
        self.region = region


class AwsError(OutsideError):
    """The service answered with an error; `code` is its own code for it."""

    def __init__(self, operation: str, region: str, code: str, evidence: str) -> None:
        super().__init__(f"{operation} failed in {region}: {code}", evidence=evidence)
        self.code = code


def from_code(permission: str, account: str, region: str, code: str, message: str) -> OutsideError | DeniedError:
    """The error for a service's answer `code` to the call that `permission` allows."""
    if code.removeprefix("Client.") in DENIED:
        return DeniedError(permission, account, region, message)
    error = AwsError(permission, region, code, message)
    if code in CREDENTIALS:
        error.hint = "the credentials do not work there: log in again, and see that the region is enabled"
    return error


def moment(said: Any) -> datetime:
    """A moment of an answer. What services write by ISO 8601 Python itself reads in a fiftieth of the time: two of each
    instance are a tenth of a scan.
    """
    from botocore.utils import parse_timestamp

    if isinstance(said, str) and said.endswith("Z"):
        with suppress(ValueError):
            return datetime.fromisoformat(said)
    found: datetime = parse_timestamp(said)
    return found


def _reading_moments() -> Any:
    """A session of botocore whose answers have their moments read by `moment`; by its own reader where it has no place
    for another.
    """
    from botocore.session import get_session

    made = get_session()
    with suppress(AttributeError, ValueError, TypeError):
        made.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    return made


@dataclass(frozen=True)
class Client:
    """One service in one region of one account. Operations are named as the service names them."""

    raw: Any
    service: str
    account: str
    region: str

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Ask the service, which checks `request` against its model first.

        Raises DeniedError, UnreachableError or AwsError; UsageError for a request that the model does not know.
        """
        require_wanted()
        from botocore import xform_name
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
        from botocore.parsers import ResponseParserError

        try:
            answer: dict[str, Any] = getattr(self.raw, xform_name(operation))(**request)
        except ClientError as error:
            said = error.response.get("Error", {})
            code, message = str(said.get("Code", "unknown")), str(said.get("Message", ""))
            raise self._refused(operation, error.operation_name, code, message) from None
        except ParamValidationError as error:
            raise UsageError(f"{self.service}:{operation}: invalid request", evidence=str(error)) from None
        except (BotoCoreError, ResponseParserError, *NOT_UNDERSTOOD) as error:  # of an answer of another form
            raise self._outside(operation, error) from None
        return answer

    def _refused(self, operation: str, refused: str, code: str, message: str) -> OutsideError | DeniedError:
        """The error for an answer `code` to an operation, or to the assuming of the role that it is asked in."""
        if refused != "AssumeRole":
            return from_code(self.permission(operation), self.account, self.region, code, message)
        found = from_code("sts:AssumeRole", self.account, self.region, code, message)
        if isinstance(found, DeniedError):
            found.hint = "the role's trust policy names who may assume it, and by which ExternalId: aws.external_ids"
        return found

    def call_unless(self, operation: str, codes: Collection[str], **request: Any) -> dict[str, Any] | None:
        """The same; None where the service answers with one of these error codes."""
        try:
            return self.call(operation, **request)
        except AwsError as error:
            if error.code in codes:
                return None
            raise

    def permission(self, operation: str) -> str:
        """What IAM policies call the right to an operation."""
        return f"{IAM_NAMES.get(self.service, self.service)}:{operation}"

    def pages(self, operation: str, key: str, **request: Any) -> Iterator[Any]:
        """All items under `key` of an operation that answers in pages, the longest that the service gives.

        Raises OutsideError where there are more than AWS_PAGES or AWS_ITEMS: a page that leads to itself never ends.
        """
        asked, given = TOKENS.get(self.service, ("NextToken", "NextToken"))
        if self.service in PAGES:
            size, most = PAGES[self.service]
            longest = SHORTER.get(operation, most)
            request = ({size: longest} if longest else {}) | request
        token: str | None = None
        what, items = f"the answer of {self.service}:{operation} in {self.region}", 0
        for page in count(1):
            AWS_PAGES.require(page, what)
            answer = self.call(operation, **request, **({asked: token} if token else {}))
            found = [] if answer.get(key) is None else _items(answer[key], key, what, operation)
            items += len(found)
            AWS_ITEMS.require(items, what)
            yield from found
            token = answer.get(given)
            if not token:
                return

    def instances(self, **request: Any) -> Iterator[dict[str, Any]]:
        """The instances that DescribeInstances shows, without their reservations."""
        what, operation = f"the answer of {self.service}:DescribeInstances in {self.region}", "DescribeInstances"
        for at, shown in enumerate(self.pages(operation, "Reservations", **request)):
            yield from _items(shown.get("Instances"), f"Reservations[{at}].Instances", what, operation)

    def _outside(self, operation: str, error: Exception) -> OutsideError:
        """The error for what stopped a call without an answer that could be understood."""
        from botocore.exceptions import ConnectionError as NoConnectionError
        from botocore.exceptions import HTTPClientError, NoCredentialsError, NoRegionError, PartialCredentialsError

        if isinstance(error, HTTPClientError | NoConnectionError):
            return UnreachableError(self.service, self.region, str(error))
        if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
            hint = "log in as for any AWS tool: environment variables, a profile, or the machine's own role"
            return OutsideError("there are no AWS credentials", evidence=str(error), hint=hint)
        return AwsError(f"{self.service}:{operation}", self.region, type(error).__name__, str(error))


def _items(found: Any, key: str, what: str, operation: str) -> list[Any]:
    """The items of a list in an answer, which are objects or names. Raises MalformedError."""
    if not isinstance(found, list):
        raise MalformedError(f"{what} is malformed: {key} is not a list")
    for at, one in enumerate(found):
        if not isinstance(one, dict | str):
            raise MalformedError(f"{what} is malformed: {key}[{at}] is not what {operation} shows")
    return found


class Clients:
    """Clients by service, account and region, made once. `AWS_ENDPOINT_URL` in the environment is honoured."""

    def __init__(self, settings: Aws, *, pause: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self.pause = pause
        self._made: dict[tuple[str, str, str], Client] = {}
        self._sessions: dict[str, Any] = {}
        self._lock = Lock()

    def client(self, service: str, region: str, account: str = "") -> Client:
        """The client of `service` in `region` of `account`, by default the account that owns the images.

        Raises ContentError for another account that has no role in `aws.roles`.
        """
        owner = account or self.settings.account
        with self._lock:  # boto3's sessions are not made for several threads
            if (service, owner, region) not in self._made:
                self._made[service, owner, region] = self._make(service, owner, region)
            return self._made[service, owner, region]

    def until(self, done: Callable[[], Any], what: str, *, within: timedelta | None = None) -> Any:
        """What `done` returns once it is true, asked again with growing pauses.

        Raises LateError after `within`, by default `aws.wait_for`.
        """
        waited, pause = 0.0, 0.2
        while not (found := done()):
            if waited > (within or self.settings.wait_for).total_seconds():
                hint = "the next run continues where this one stopped"
                raise LateError(f"{what} did not finish in time", hint=hint)
            self.pause(pause)
            waited, pause = waited + pause, min(pause * 1.5, LONGEST_PAUSE)
        return found

    def _make(self, service: str, account: str, region: str) -> Client:
        from botocore.exceptions import BotoCoreError

        try:
            raw = self._session(account, region).client(service, region_name=region, config=self._config())
        except BotoCoreError as error:
            raise OutsideError(f"no client for {service} in {region}", evidence=str(error)) from None
        except ValueError as error:  # an endpoint that is no address
            raise ContentError(str(error), key="AWS_ENDPOINT_URL", hint="such as http://127.0.0.1:5000") from None
        return Client(raw, service, account, region)

    def _config(self) -> Any:
        """How every client asks: how long it waits, and how often it tries again."""
        from botocore.config import Config

        return Config(
            retries={"mode": "standard", "total_max_attempts": self.settings.attempts},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=self.settings.timeout.total_seconds(),
            max_pool_connections=max(10, self.settings.parallel),
            parameter_validation=True,
            user_agent_extra="goldsmith",
        )

    def _session(self, account: str, region: str) -> Any:
        """The session of an account: the credentials at hand, or those of the role to assume in it."""
        import boto3

        if account not in self._sessions:
            base = boto3.Session(botocore_session=_reading_moments())
            role = self._role(base, account, region)
            hint = f'roles = {{"{account}" = "arn:aws:iam::{account}:role/…"}}, or organization_role for all'
            if not role and account != self.settings.account:
                raise ContentError(f"no role to look into account {account}", key="aws.roles", hint=hint)
            if role and role.split(":")[4:5] != [account]:  # what it shows would be told of the wrong account
                raise ContentError(f"{role} is not a role of account {account}", key="aws.roles", hint=hint)
            self._sessions[account] = self._assuming(base, account, role, region) if role else base
        return self._sessions[account]

    def _role(self, base: Any, account: str, region: str) -> str:
        """The role to assume in an account, by its ARN; empty where none is known, or it is our own."""
        name = self.settings.organization_role
        if account in self.settings.roles or not name or account == self.settings.account:
            return self.settings.roles.get(account, "")
        partition = base.get_partition_for_region(self.settings.region or region)
        return f"arn:{partition}:iam::{account}:role/{name}"

    def _assuming(self, base: Any, account: str, role: str, region: str) -> Any:
        """A session with the credentials of an account's role, for an hour each: fetched from the home region when they
        are needed, and again before they end.
        """
        import boto3
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        source, config, home = base._session, self._config(), self.settings.region or region
        named = self.settings.external_ids.get(account, "")
        fetcher = AssumeRoleCredentialFetcher(
            lambda service, **more: source.create_client(service, region_name=home, config=config, **more),
            source.get_credentials(),
            role,
            extra_args={"RoleSessionName": "goldsmith"} | ({"ExternalId": named} if named else {}),
        )
        own = _reading_moments()
        credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
        own._credentials = credentials  # botocore's documented way
        return boto3.Session(botocore_session=own)
