"""Settings: `goldsmith.toml` at the checkout's root, overridden by `GOLDSMITH_*`; neither contains secrets.

Nested keys in the environment use two underscores: `GOLDSMITH_REGISTRY__ADDRESS=registry.example.com/golden`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from hardening.foundation import addresses
from hardening.foundation.addresses import is_safe
from hardening.foundation.content import Content, explain, find_content, read_toml, readable
from hardening.foundation.durations import Duration, duration
from hardening.foundation.engine_address import without_password
from hardening.foundation.errors import ContentError, nearest
from hardening.foundation.telling import DigestSettings, Github
from hardening.foundation.wording import matching

ROOT = Path(__file__).resolve().parents[2]


class Registry(Content):
    """Where releases are published. Log in with docker credential helpers (`docker login`), never with a key here."""

    address: str = Field("", description="host[:port]/path; empty: the embedded registry on loopback")
    ca_file: Path | None = Field(None, description="PEM file of a private certificate authority")
    insecure: bool = Field(False, description="speak plain HTTP; loopback addresses always do")

    _sound = field_validator("address")(staticmethod(addresses.of_registry))


ArchiveSuite = Annotated[
    str, matching(r"^([A-Za-z0-9._/+~-]|\{suite\})+$", 'a suite such as "{suite}-updates", or a folder such as "./"')
]


class Packages(Content):
    """Where packages come from. Empty values are taken from the host's own apt configuration."""

    mirror: str = Field("", description="base address of the archive; empty: the host's own")
    security_mirror: str = Field("", description="base address of the security archive; empty: the host's own")
    proxy: str = Field("", description="http proxy for the mirror; empty: the host's apt proxy")
    keyring: Path | None = Field(None, description="keyring that signs the archive; empty: the distribution's")
    suites: tuple[ArchiveSuite, ...] = Field(
        ("{suite}", "{suite}-updates"), description="suites of `mirror`; one that ends in / is a flat repository"
    )
    extra_sources: tuple[Path, ...] = Field(
        (), description="more deb822 source files to plan and build from; images themselves do not hold them"
    )
    snapshot: str = Field(
        "",
        description="archive that keeps old versions, for `image.reproduce`; `{archive}` in it becomes debian and "
        "debian-security, `{time}` when the image was built; empty: none",
    )

    _plain = field_validator("mirror", "security_mirror", "proxy", "snapshot")(staticmethod(addresses.plain))


class Docker(Content):
    """The engines: the one that runs fleets, and the one that builds (with the containerd image store)."""

    host: str = Field(
        "", description="engine of the docker fleets, as DOCKER_HOST; empty: the host's, else our private one"
    )
    build_host: str = Field(
        "", description="engine that builds; empty: `host` if it has the containerd image store, else a private one"
    )
    instance: Annotated[
        str,
        matching(
            r"^([0-9]{12}/[a-z0-9-]+/i-[0-9a-f]+)?$", "ACCOUNT/REGION/INSTANCE, such as 123456789012/eu-central-1/i-0a1"
        ),
    ] = Field(
        "", description="the EC2 instance that `host` runs on, as ACCOUNT/REGION/INSTANCE, for fleet.blast-radius"
    )
    certificates: Path | None = Field(
        None,
        description="directory with ca.pem, cert.pem and key.pem for the tcp:// hosts that fleets name; a directory in "
        "it that is called as a host is that host's",
    )
    ssh_config: Path | None = Field(
        None, description="configuration (ssh -F) for the ssh:// hosts that fleets name; empty: ssh's own files"
    )
    read_within: Duration = Field(
        duration("2m"), description="how long one of several hosts may take to show what a fleet runs on it"
    )

    @field_validator("host", "build_host")
    @classmethod
    def _address(cls, host: str) -> str:
        if host and "://" not in host:
            raise ValueError(f"{host} has no scheme: a socket is named unix://{host}, a machine ssh://USER@HOST")
        if (shown := without_password(host)) != host:
            raise ValueError(f"{shown} contains a password: ssh uses its agent or keys, tcp:// shows a certificate")
        return host


DEBIAN, DOWNLOAD, NONE = "debian", "download", "none"  # what feeds are called beside addresses and directories


class Feeds(Content):
    """Vulnerability data: a word, an address (https://…), a directory (docs/feeds.md describes what is in it), or of
    debsecan, tracker, kev, epss and osv an OCI artifact (`oci:registry.example.com/feeds:latest`).
    """

    debsecan: str = Field(
        DEBIAN, description="`debian` or empty: Debian's security tracker; `none`: the small dated sample that ships"
    )
    trivy: str = Field(
        DOWNLOAD, description="`download` or empty: trivy fetches its own database; a directory with its cache; `none`"
    )
    tracker: str = Field(
        DEBIAN, description="`debian` or empty: the JSON of Debian's security tracker, all that it knows of every "
        "suite; an address, a file, or a directory with tracker.json; `none`: the small dated sample that ships",
    )  # fmt: skip
    kev: str = Field(
        DOWNLOAD, description="`download` or empty: CISA's list of exploited vulnerabilities; an address or a file; "
        "`none`: nothing counts as exploited",
    )  # fmt: skip
    epss: str = Field(
        DOWNLOAD, description="`download` or empty: FIRST's estimates of how likely each vulnerability is exploited "
        "within 30 days; an address, a file, or a directory with epss.csv.gz; `none`",
    )  # fmt: skip
    osv: str = Field(
        NONE, description="OSV's export for Debian, which adds to the tracker what it does not list: `download`, an "
        "address or a file; empty: `none`",
    )  # fmt: skip
    openscap: str = Field(
        "", description="directory with ssg-debian13-ds.xml and its like; empty: one pinned package from the mirror"
    )
    reproduced: str = Field(
        "", description="which packages others built again to the same bytes: address of a rebuilderd such as "
        "https://reproduce.debian.net, or a directory with amd64.json and all.json; empty: this is not looked up",
    )  # fmt: skip
    grype: str = Field("", description="directory with grype's database (GRYPE_DB_CACHE_DIR); empty: none")
    osv_scanner: str = Field(
        "", description="directory with osv-scanner's data (OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY); empty: none"
    )

    @field_validator("debsecan", "trivy", "tracker", "kev", "epss", "osv")
    @classmethod
    def _given(cls, place: str, info: ValidationInfo) -> str:
        return place or str(cls.model_fields[str(info.field_name)].default)

    @field_validator("debsecan", "tracker", "kev", "epss", "osv", "reproduced")
    @classmethod
    def _safe(cls, place: str) -> str:
        if "://" in place and not is_safe(place):
            raise ValueError(
                f"{addresses.without_login(place)} is no https:// address without a password in it; http:// is for "
                "this machine itself, and a login belongs into ~/.netrc"
            )
        return place


class Notify(Content):
    """Where messages go when a rollout starts, waits for approval, pauses, fails or ends, when a night ends, and when
    an application's base has a newer release: JSON with `event` and `text`.
    """

    command: tuple[str, ...] = Field((), description="program that gets one message on its standard input")
    webhook_file: Path | None = Field(
        None, description="file that holds an address to POST to, which is a secret and so stands in no setting"
    )


class Nightly(Content):
    """What a night may do besides building, publishing and promoting."""

    prune: bool = Field(False, description="true: a night removes what `image.prune` would; false: it names that")
    parallel: int = Field(4, ge=1, le=64, description="fleets at a time, each in its own process")
    policy: str = Field(
        "", description="policy that gates the images of a night instead of their own; `--policy` overrides it"
    )


PORT = "([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


class Serve(Content):
    """What `./goldsmith serve` does by itself, and where it answers."""

    listen: Annotated[str, matching(rf"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):{PORT}$", "ADDRESS:PORT")] = Field(
        "127.0.0.1:8470", description="where it answers; for other machines, put a proxy with TLS before it"
    )
    hosts: tuple[Annotated[str, matching(rf"^{LABEL}(\.{LABEL})*$", "a host's name, without its port")], ...] = Field(
        (), description="names that it answers to, besides localhost and addresses; other names are refused"
    )
    nightly: str = Field("0 2 * * *", description="when the whole night runs, as in cron; empty: never")
    urgent: str = Field(
        "*/15 * * * *", description="when feeds are checked for urgent fixes, which are then released; empty: never"
    )
    zone: str = Field("UTC", description="time zone of both")
    webhook_secret_file: Path | None = Field(
        None, description="file with the secret (whsec_…, Standard Webhooks) that signs calls of /hooks; empty: none"
    )


class Signing(Content):
    """What signs releases. Empty: a key pair of this installation, made by `setup` and kept in `state`."""

    key: str = Field("", description="awskms: and the ARN of a key (ECC_NIST_P256, SIGN_VERIFY) in `aws.region`")
    command: tuple[str, ...] = Field(
        (), description="program that gets what is signed on its input and prints the signature, both in base64"
    )
    public_key: Path | None = Field(None, description="PEM file with the public half of what `command` signs with")
    channels_expire_after: Duration = Field(duration("7d"), le=duration("90d"), description="life of channel documents")

    @field_validator("key")
    @classmethod
    def _known(cls, key: str) -> str:
        if key and not key.startswith("awskms:arn:"):
            raise ValueError(f"{key} is not awskms:arn:…; for other clouds and devices name a program in `command`")
        return key


Account = Annotated[str, matching(r"^([0-9]{12})?$", "an account's id: twelve digits")]
Region = Annotated[str, matching(r"^([a-z]{2}(-[a-z]+)+-[0-9])?$", "a region such as eu-central-1")]
RoleName = Annotated[
    str, matching(r"^(([A-Za-z0-9_+=,.@-]+/)*[A-Za-z0-9_+=,.@-]{1,64})?$", "a role's name, with its path if it has one")
]
RoleArn = Annotated[
    str, matching(r"^arn:[a-z-]+:iam::[0-9]{12}:role/([A-Za-z0-9_+=,.@-]+/)*[A-Za-z0-9_+=,.@-]{1,64}$", "a role's ARN")
]
Prefix = Annotated[str, matching(r"^[A-Za-z0-9._-]{1,40}$", "a name of letters, digits and . _ - without spaces")]


class Aws(Content):
    """Where machine images are published. Credentials come from boto3's own chain, never from here."""

    account: Account = Field("", description="the account that owns the images; other credentials are refused")
    region: Region = Field("", description="where images are uploaded and registered; empty: no AWS")
    regions: tuple[Region, ...] = Field(
        (), max_length=19, description="where they are copied to; more than 19 do not fit into one signed statement"
    )
    roles: dict[Account, str] = Field({}, description="account → ARN of the role to assume there")
    organization_role: RoleName = Field(
        "", description="name of the role to assume in each account that `roles` does not name"
    )
    external_ids: dict[Account, str] = Field({}, description="account → the ExternalId that its role requires")
    passed_roles: tuple[RoleArn, ...] = Field(
        (), max_length=100, description="ARNs of the roles of fleets' instances and ECS tasks, which rollouts hand on"
    )
    kms_keys: dict[Region, str] = Field({}, description="region → ARN of a customer-managed key that encrypts images")
    encrypted: bool = Field(
        True, description="false: images lie unencrypted, and anyone they are shared with reads them"
    )
    signing_key: str = Field("", description="KMS key (ECC_NIST_P256, SIGN_VERIFY) in `region` that signs statements")
    share_accounts: tuple[Account, ...] = Field((), description="accounts that may launch the images")
    share_organizations: tuple[str, ...] = Field((), description="ARNs of organisations that may launch them")
    name_prefix: Prefix = Field("goldsmith", description="how names of images and parameters begin")
    parallel: int = Field(16, ge=1, le=64, description="blocks uploaded at a time")
    attempts: int = Field(10, ge=1, le=20, description="how often one call is tried in all, with growing waits")
    timeout: Duration = Field(duration("30s"), description="how long one call waits for its answer")
    read_within: Duration = Field(
        duration("2m"), description="how long one region of one account may take to show what a fleet runs in it"
    )
    wait_for: Duration = Field(duration("6h"), description="how long a snapshot, an image or a copy may take")
    disable_after: Duration = Field(duration("14d"), description="from an image's end to its being disabled")
    deregister_after: Duration = Field(duration("30d"), description="from being disabled to being removed")

    @field_validator("kms_keys")
    @classmethod
    def _shareable(cls, keys: dict[str, str]) -> dict[str, str]:
        for key in keys.values():
            if key.endswith("alias/aws/ebs"):
                raise ValueError(
                    f"{key} is the account's default key: data that it encrypts cannot be shared; create your own"
                )
            if not key.startswith("arn:"):
                raise ValueError(f"{key} is not an ARN: give the key's full ARN, so that it is the same key everywhere")
        return keys

    @field_validator("share_organizations")
    @classmethod
    def _organizations(cls, arns: tuple[str, ...]) -> tuple[str, ...]:
        for arn in arns:
            if not re.fullmatch(r"arn:[a-z-]+:organizations::[0-9]{12}:(organization|ou)/[a-z0-9/-]+", arn):
                raise ValueError(f"{arn} is not the ARN of an organisation or one of its units")
        return arns

    @property
    def all_regions(self) -> tuple[str, ...]:
        """Home first, then where images are copied to."""
        return tuple(dict.fromkeys(region for region in (self.region, *self.regions) if region))


class Judging(Content):
    """Which policies decide: those whose verdict may publish an image, and the content roots that may add rules."""

    policies: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("default", "machine"), description="policies whose verdict lets a release be published and promoted"
    )
    floor: str = Field(
        "default", description="policy that each of `policies` is at least as strict as, field by field; empty: none"
    )
    roots: tuple[Path, ...] = Field(
        (), description="those of `content` that may add policies, waivers, fleets, networks, and loosen controls"
    )


class Retention(Content):
    """What `image.prune` keeps beyond what is needed, except revoked releases.

    Always kept are what runs, what a channel or a launch template names, what a kept image is built on, and the newest
    that stands.
    """

    keep_last: int = Field(0, ge=0, le=1000, description="of each definition, the last different images, also expired")
    keep_for: Duration = Field(duration("0s"), description="how long a release stays once it is expired or superseded")


class Settings(BaseSettings):
    """Everything that differs between two installations of Goldsmith."""

    model_config = SettingsConfigDict(env_prefix="GOLDSMITH_", env_nested_delimiter="__", extra="forbid", frozen=True)

    state: Path = Field(
        Path(".goldsmith"), description="what Goldsmith keeps on this machine; relative to the checkout"
    )
    content: tuple[Path, ...] = Field((), description="more content roots, each laid out like this checkout")
    database: str = Field("", description="SQLAlchemy URL of the ledger and the flows; empty: SQLite in `state`")
    annotation_prefix: str = "dev.goldsmith."
    platform: str = Field("linux/amd64", description="the platform built when a definition names several")
    kinds: Annotated[tuple[Literal["container", "machine"], ...], Field(min_length=1)] = Field(
        ("container", "machine"), description="what `all` and globs mean on this machine; a name means itself"
    )
    parallel: int = Field(2, ge=1, description="builds at a time")
    scanners: tuple[Literal["detect-secrets", "grype", "lynis", "osv-scanner"], ...] = Field(
        (), description="scanners to run beside the default ones; what is named must be installed here"
    )
    retry_for: Duration = Field(duration("2m"), description="how long mirror, registry and Docker are retried")
    cooldown: Duration = Field(
        duration("3d"), description="how long an upstream image, or a package of packages.extra_sources, must have "
        "been seen here before it is taken; 0s: at once. What fixes an exploited or critical hole does not wait",
    )  # fmt: skip
    locks: Literal["manual", "auto"] = Field(
        "manual", description="auto: a nightly run moves images.lock.toml to what has waited out its cooldown; manual: "
        "only `image.lock` does",
    )  # fmt: skip
    rebuild_programs: tuple[str, ...] = Field(
        (), description="programs that `command` under a fleet's `[rebuild]` may name, as it does: whoever writes a "
        "fleet gives them their arguments, so no shell",
    )  # fmt: skip
    registry: Registry = Registry()
    packages: Packages = Packages()
    docker: Docker = Docker()
    feeds: Feeds = Feeds()
    notify: Notify = Notify()
    digest: DigestSettings = DigestSettings()
    github: Github = Github()
    nightly: Nightly = Nightly()
    serve: Serve = Serve()
    judging: Judging = Judging()
    signing: Signing = Signing()
    retention: Retention = Retention()
    aws: Aws = Aws()
    _instead: tuple[Path, ...] = ()

    @field_validator("database")
    @classmethod
    def _supported(cls, url: str) -> str:
        if url and not addresses.DATABASE.fullmatch(url):  # never shown: it may hold a password
            raise ValueError("neither sqlite:///FILE nor postgresql+psycopg://USER@HOST/NAME; in a password, @ is %40")
        return url

    @classmethod
    def settings_customise_sources(cls, *_: Any, **given: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment stands before the file, whose values arrive as init arguments."""
        return EnvSettingsSource(cls), given["init_settings"]

    @property
    def state_dir(self) -> Path:
        """The state directory, absolute."""
        return self.state if self.state.is_absolute() else ROOT / self.state

    @property
    def roots(self) -> tuple[Path, ...]:
        """Content roots, the checkout first; a later root's content is added, never overrides by the same name."""
        return self._instead or (ROOT, *((ROOT / path).resolve() for path in self.content))

    def over(self, roots: tuple[Path, ...]) -> Settings:
        """The same settings over other content roots, such as those of another revision; one for each."""
        other = self.model_copy()
        other._instead = roots
        return other

    @property
    def database_url(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.database or f"sqlite:///{self.state_dir / 'ledger.sqlite'}"


def load_settings(path: Path | None = None) -> Settings:
    """Settings from `goldsmith.toml` (or `path`) and the environment.

    Raises ContentError that names the file and key path, with the nearest known key.
    """
    file = path or ROOT / "goldsmith.toml"
    data: dict[str, Any] = read_toml(file) if os.path.lexists(file) else {}
    try:
        settings = Settings(**data)
    except ValidationError as error:
        # The first value that is wrong came from the environment, which wins, or from the file.
        raise explain(error, Settings, _blamed_variable(error.errors()[0]["loc"]) or file) from None
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        variable = f"GOLDSMITH_{named[1].upper()}" if named else "GOLDSMITH_*"
        is_list = named and get_origin(Settings.model_fields[named[1]].annotation) is tuple
        hint = f"""a list in JSON: {variable}='["/srv/content"]'""" if is_list else _NESTED
        raise ContentError("not JSON", file=f"{variable} in the environment", hint=hint) from None
    _refuse_unknown_variables()
    _require_roots(settings, file)
    return settings


PREFIX = "GOLDSMITH_"
MOVED, OF_TESTS = "GOLDSMITH_NOW", "GOLDSMITH_TEST_"  # no settings: a rehearsal's clock, and what tests are told
REHEARSAL = "rehearsal"  # a file of this name in a state directory says that it was made for rehearsing


def pretended(settings: Settings) -> bool:
    """Whether the clock is moved for a look alone, outside of a rehearsal: what is judged by it must not be kept."""
    return bool(os.environ.get(MOVED)) and not rehearsing(settings)


def rehearsing(settings: Settings) -> bool:
    """Whether what is done here is a rehearsal, of which nobody outside is told."""
    return (settings.state_dir / REHEARSAL).is_file()


def _refuse_unknown_variables() -> None:
    """Raise ContentError for a variable that no setting reads: pydantic says nothing of those that it does not know."""
    sections = {f"{PREFIX}{name.upper()}": field.annotation for name, field in Settings.model_fields.items()}
    tables = {name: model for name, model in sections.items() if isinstance(model, type) and issubclass(model, Content)}
    for variable in sorted(os.environ):
        name = variable.upper()
        sets = name in sections or name.partition("__")[0] in tables
        if not name.startswith(PREFIX) or sets or name == MOVED or name.startswith(OF_TESTS):
            continue
        keys = (f"{table}__{key.upper()}" for table, model in tables.items() for key in model.model_fields)
        hint = nearest(name, [*sections, *keys])
        raise ContentError("no setting has this name", file=f"{variable} in the environment", hint=hint)


def _require_roots(settings: Settings, file: Path) -> None:
    """Content roots that are not there hold controls and images that somebody counts on."""
    for number, root in enumerate(settings.roots[1:]):
        with readable(root):
            there = root.is_dir()
        if not there:
            where = _blamed_variable(("content",)) or file
            raise ContentError(f"no such directory: {root}", file=where, key=f"content[{number}]")
    _refuse_rules(settings, file)


RULES = ("hardening/policies", "hardening/waivers", "pipelines/fleets", "network")


def _refuse_rules(settings: Settings, file: Path) -> None:
    """Policies, waivers, fleets and networks decide for others: only a root that the settings name may add them."""
    named = [(ROOT / root).resolve() for root in settings.judging.roots]
    content = [(ROOT / root).resolve() for root in settings.content]
    for number, root in enumerate(named):
        if root not in content:
            where = _blamed_variable(("judging", "roots")) or file
            raise ContentError(f"{root} is not among `content`", file=where, key=f"judging.roots[{number}]")
    for root in content:
        found = next((path for room in RULES for path in find_content([root], room, "*.toml").values()), None)
        if found and root not in named:
            hint = f'if {root} may add policies, waivers, fleets and networks, name it: [judging] roots = ["{root}"]'
            raise ContentError("the settings let this content root add none of these", file=found, hint=hint)


def place_of(*key: str) -> str:
    """What sets a setting: its variable in the environment, else the file."""
    return _blamed_variable(key) or "goldsmith.toml"


_NESTED = "one value of a table is set by two underscores: GOLDSMITH_REGISTRY__ADDRESS=registry.example.com/golden"


def _blamed_variable(loc: tuple[int | str, ...]) -> str:
    """The variable that holds the value at `loc`, if one does."""
    names = [str(part) for part in loc if isinstance(part, str)]
    longest_first = ["GOLDSMITH_" + "__".join(names[:length]).upper() for length in range(len(names), 0, -1)]
    return next((f"{name} in the environment" for name in longest_first if name in map(str.upper, os.environ)), "")
