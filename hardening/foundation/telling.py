"""The settings of notifications: digests by mail and chat, and deployment records at GitHub. Part of `Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hardening.foundation.addresses import is_loopback, is_safe
from hardening.foundation.content import Content
from hardening.foundation.durations import Duration, duration
from hardening.foundation.wording import matching

MailAddress = Annotated[
    str,
    Field(max_length=254),
    matching(
        r"^[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
        "an address such as ann@example.com",
    ),
]
HostPort = Annotated[
    str, matching(r"^(|(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})$", "HOST:PORT, such as mail.example.com:587")
]
ChannelName = Annotated[str, matching(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$", "a name of letters, digits and . _ -")]


class Smtp(Content):
    """The mail server of digests. Without a verified certificate nothing is sent to another machine."""

    server: HostPort = Field("", description="HOST:PORT; empty: no mail")
    sender: MailAddress | None = Field(None, description="whom digests are from")
    tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="starttls: port 587 or 25; implicit: port 465; none: to this machine itself alone"
    )
    login_file: Path | None = Field(
        None, description="file with two lines, the user and the password, which stand in no setting; none: no login"
    )
    ca_file: Path | None = Field(None, description="PEM file of a private certificate authority")

    @model_validator(mode="after")
    def _complete(self) -> Smtp:
        if self.server and self.sender is None:
            raise ValueError("server needs a sender")
        if self.server and self.tls == "none" and not is_loopback(self.server):
            raise ValueError('tls = "none" is only for mail to this machine: set "starttls" or "implicit"')
        return self


class Channel(Content):
    """Who gets a digest, by mail, by a chat's webhook, or both, and whose points it contains."""

    owners: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = Field(
        ("*",),
        description="the people whose points it tells: owners of fleets and images, and those who have to act; globs",
    )
    mail: tuple[MailAddress, ...] = Field((), max_length=50, description="each gets a mail of its own")
    webhook_file: Path | None = Field(
        None, description="file that holds the https address to POST `text` to, which is a secret"
    )

    @model_validator(mode="after")
    def _somebody(self) -> Channel:
        if not self.mail and self.webhook_file is None:
            raise ValueError("give mail, webhook_file, or both")
        return self


class DigestSettings(Content):
    """The digest: what is newly out of policy, still open, acted on, and ended. Without channels there is none."""

    channels: dict[ChannelName, Channel] = Field({}, description="who gets one, by name")
    remind_after: Duration = Field(
        duration("7d"), description="how long nothing more is said of a point that stays as it is"
    )
    near: Duration = Field(duration("2d"), description="so long before its deadline a point is told once more")
    smtp: Smtp = Smtp()

    @field_validator("remind_after")
    @classmethod
    def _not_always(cls, span: Duration) -> Duration:
        if span < duration("1h"):
            raise ValueError("must be at least 1h")
        return span

    @model_validator(mode="after")
    def _mailable(self) -> DigestSettings:
        if not self.smtp.server and (name := next((name for name, one in self.channels.items() if one.mail), "")):
            raise ValueError(f"channels.{name}.mail needs digest.smtp.server")
        return self


class Github(Content):
    """Where each rollout makes a deployment record. Both `repository` and `token_file` empty: nowhere."""

    repository: Annotated[
        str, matching(r"^([A-Za-z0-9-]{1,39}/[A-Za-z0-9._-]{1,100})?$", "OWNER/NAME of a repository")
    ] = Field("", description="OWNER/NAME; its environments are the fleets")
    token_file: Path | None = Field(
        None, description="file that holds a token which may write deployments of that repository"
    )
    api: str = Field("https://api.github.com", description="of GitHub Enterprise: https://HOST/api/v3")
    ref: Annotated[str, matching(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,249}$", "a branch, a tag or a commit")] = Field(
        "main", description="what the records name as deployed: a branch, tag or commit of the repository"
    )
    ca_file: Path | None = Field(None, description="PEM file of a private certificate authority")

    @field_validator("api")
    @classmethod
    def _over_tls(cls, api: str) -> str:
        if not is_safe(api) or set("?#") & set(api):
            raise ValueError("must be an https address without a login, such as https://github.example.com/api/v3")
        return api.rstrip("/")

    @model_validator(mode="after")
    def _both(self) -> Github:
        if bool(self.repository) != (self.token_file is not None):
            raise ValueError("repository and token_file must be given together")
        return self
