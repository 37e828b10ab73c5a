"""What the settings cannot do is said before a night does anything, all at once; what may come back stops no night."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from hardening.foundation.errors import ContentError, RefusedError, nearest
from hardening.foundation.settings import Feeds, Judging, Nightly, Notify, Packages, Registry, Settings, Signing
from hardening.foundation.settings import load_settings as really_load
from hardening.foundation.telling import Channel, DigestSettings, Github, Smtp
from images.context import Context
from pipelines.nightly import command, night_run
from pipelines.nightly.command import dry_run, run_nightly
from pipelines.nightly.model import NightOrder, NightRecord
from pipelines.nightly.night_run import nightly
from pipelines.nightly.preflight import require_workable
from pipelines.nightly.stages import WorldStages
from pipelines.nightly.summary import output
from pipelines.rollout.notify import unreachable, unreadable

TODAY = date(2026, 11, 28)
NIGHT = datetime(2026, 11, 28, 2, tzinfo=UTC)
NOWHERE = Path("/nowhere/file")
TRIAL = Judging(policies=("demo",), floor="")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"judging": Judging(policies=("defualt",))}, "judging.policies[0]: unknown policy: defualt"),
        ({"judging": Judging(floor="flor")}, "judging.floor: unknown policy: flor"),
        ({"nightly": Nightly(policy="dmeo")}, "nightly.policy: unknown policy: dmeo"),
        ({"registry": Registry(ca_file=NOWHERE)}, "registry.ca_file: this file cannot be read: /nowhere/file"),
        ({"packages": Packages(keyring=NOWHERE)}, "packages.keyring: this file"),
        ({"packages": Packages(extra_sources=(NOWHERE,))}, "packages.extra_sources: this file"),
        ({"signing": Signing(command=("no-such-program",))}, "signing.command: no program is called no-such-program"),
        ({"signing": Signing(command=("true",))}, "signing.public_key: no public key can be read: none is named"),
        ({"feeds": Feeds(trivy="downlaod")}, "feeds.trivy: neither a known word nor an address or a directory"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_key(wrong: dict[str, Any], said: str) -> None:
    """With the exit code of its author, whatever else is right."""
    with pytest.raises(ContentError) as error:
        require_workable(Settings(**wrong), "", TODAY)
    assert f"goldsmith.toml: {said}" in str(error.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    """Settings are not to be corrected one at a time, night after night."""
    wrong = Settings(registry=Registry(ca_file=NOWHERE), nightly=Nightly(policy="dmeo"))
    with pytest.raises(ContentError, match=r"nightly\.policy") as error:
        require_workable(wrong, "", TODAY)
    assert error.value.evidence == "registry.ca_file: this file cannot be read: /nowhere/file"


def test_what_may_come_back_stops_no_night(tmp_path: Path) -> None:
    """A feed's disk, a registry, a mirror: a night goes on without, as for those that only this night lacks."""
    feeds = Feeds(kev="/nowhere/kev.json", tracker="https://127.0.0.1:1/tracker", trivy="oci:127.0.0.1:1/feeds:latest")
    away = Settings(state=tmp_path, feeds=feeds, registry=Registry(address="127.0.0.1:1/golden"))
    require_workable(away, "", TODAY)
    require_workable(Settings(judging=TRIAL), "demo", TODAY)


def test_a_policy_of_the_night_that_may_publish_nothing_is_refused_at_once() -> None:
    """Every image would be refused for it, one by one."""
    for policy, of_settings in (("demo", ""), ("", "demo")):
        with pytest.raises(RefusedError, match="the policy demo may not publish"):
            require_workable(Settings(nightly=Nightly(policy=of_settings)), policy, TODAY)
    require_workable(Settings(nightly=Nightly(policy="demo")), "default", TODAY)


URLS = (
    "nonsense", "mysql://u:hunter2@db/x", "postgres:hunter2", "sqlite:///", "sqlite://",
    *(f"postgresql+psycopg://me:hunter2@{host}/x" for host in ("db:notaport", "db:", "[::1", "::1", "hunter@db")),
    "postgresql://me:hun@ter/2@db/x",
)  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_database_of_no_known_kind_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    """By every command: a ledger is opened in the middle of them."""
    file = tmp_path / "goldsmith.toml"
    file.write_text(f'database = "{url}"\n')
    with pytest.raises(ContentError) as error:
        really_load(file)
    said = "neither sqlite:///FILE nor postgresql+psycopg://USER@HOST/NAME; in a password, @ is %40"
    assert str(error.value) == f"{file}: database: {said}"


@pytest.mark.parametrize("login", ["", "me@", "me:hunter2@", "me:hun/ter?2#@"])
@pytest.mark.parametrize("rest", ["db/x", "db:5432/x", "[::1]:5432/x?sslmode=require", "/x?host=/run/postgresql", "db"])
def test_a_database_that_can_be_reached_is_taken_as_it_is_written(tmp_path: Path, login: str, rest: str) -> None:
    """What the settings take is read alike by what connects."""
    url = f"postgresql+psycopg://{login}{rest}"
    (tmp_path / "goldsmith.toml").write_text(f'database = "{url}"\n')
    assert make_url(really_load(tmp_path / "goldsmith.toml").database_url).password == (login[3:-1] or None)


@pytest.mark.parametrize("dry", [False, True])
def test_the_settings_name_the_policy_of_nights_and_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    """So a scheduled night, `serve` and a night that is typed judge by the same one."""
    judging = Judging(policies=("demo", "default"), floor="")
    settings = Settings(state=tmp_path, judging=judging, nightly=Nightly(policy="demo"))
    monkeypatch.setattr(command, "load_settings", lambda: settings)
    judged_by = list[str]()

    def keep(context: Context, _only: str, *, urgent: bool) -> None:
        judged_by.append(context.policy)
        assert not urgent

    monkeypatch.setattr(*((command, "dry_run") if dry else (night_run, "nightly")), keep)
    run_nightly(dry=dry)
    run_nightly("default", dry=dry)
    assert judged_by == ["demo", "default"]


@pytest.mark.parametrize("run", [nightly, dry_run])
@pytest.mark.parametrize("place", ["hardening/waivers/x.toml", "pipelines/fleets/x.toml"])
def test_a_night_and_its_dry_run_ask_the_same_before(
    tmp_path: Path, run: Callable[[Context], object], place: str
) -> None:
    """Settings, and the files that may be the ones that count: nothing is asked of mirror and feeds before."""
    with pytest.raises(ContentError, match=r"nightly\.policy"):
        run(Context(Settings(state=tmp_path, nightly=Nightly(policy="dmeo")), NIGHT, str, str))
    file = tmp_path / "content" / place
    file.parent.mkdir(parents=True)
    file.write_text("not TOML")
    with pytest.raises(ContentError, match=r"x\.toml: not TOML"):
        run(Context(Settings(state=tmp_path, content=(tmp_path / "content",)), NIGHT, str, str))
    assert not (tmp_path / "feeds").exists()


@pytest.mark.parametrize(("more", "told"), [({}, True), ({"urgent": True}, False), ({"only": "debian-*"}, False)])
def test_a_whole_night_that_cannot_begin_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], told: bool
) -> None:
    """Nobody misses a message. What comes every quarter of an hour, or somebody has typed, would only be noise."""
    heard = tmp_path / "heard"
    notify = Notify(command=("sh", "-c", f"cat >{heard}"))
    settings = Settings(state=tmp_path, nightly=Nightly(policy="dmeo"), notify=notify)
    monkeypatch.setattr(command, "load_settings", lambda: settings)
    with pytest.raises(ContentError, match=r"nightly\.policy"):
        run_nightly(**more)
    assert heard.exists() == told
    if told:
        message = json.loads(heard.read_text())
        assert (message["event"], message["rollout"]) == ("night", "")
        assert message["text"].endswith(": goldsmith.toml: nightly.policy: unknown policy: dmeo; exit code 2")


def test_a_target_that_can_be_told_nothing_is_known_before(tmp_path: Path) -> None:
    """A program that is not there, a file without an address; what is right is not named."""
    (tmp_path / "address").write_text("https://example.com/hook\n")
    (tmp_path / "empty").write_text("\n")
    assert not [*unreachable(Notify(command=("true",), webhook_file=tmp_path / "address"))]
    program, file = unreachable(Notify(command=("no-such-program",), webhook_file=tmp_path))
    assert program == "notify.command: no program is called no-such-program"
    assert file == f"notify.webhook_file cannot be read: Is a directory: {tmp_path}"
    assert [*unreachable(Notify(webhook_file=tmp_path / "empty"))] == [
        "notify.webhook_file: the file does not hold an address"
    ]


def test_a_secret_of_digest_or_github_that_cannot_be_read_is_known_before(tmp_path: Path) -> None:
    """Each by its key; what can be read, and what is not set, is not named."""
    (tmp_path / "there").write_text("https://example.com/hook\n")
    gone = tmp_path / "gone"
    digest = DigestSettings(
        channels={"shop": Channel(webhook_file=gone), "web": Channel(webhook_file=tmp_path / "there")},
        smtp=Smtp(server="127.0.0.1:25", sender="goldsmith@example.com", login_file=gone),
    )
    github = Github(repository="example/fleets", token_file=gone)
    named = [one.partition(" ")[0] for one in unreadable(Settings(digest=digest, github=github))]
    assert named == ["digest.channels.shop.webhook_file", "digest.smtp.login_file", "github.token_file"]
    assert not [*unreadable(Settings())]


def test_a_night_that_nobody_could_be_told_of_has_a_line_and_the_operators_exit_code(tmp_path: Path) -> None:
    """It read as a success while the team waited for its message."""
    settings, now = Settings(state=tmp_path, notify=Notify(command=("false",))), datetime(2026, 11, 28, 2, tzinfo=UTC)
    record = NightRecord(NightOrder("night-1", now, policy="demo"), (), (), (), now)
    part = WorldStages(Context(settings, now, lambda: "", lambda: "")).notify(record)
    night = output(NightRecord(record.order, (), (), (part,), now))
    (line,) = night.lines
    assert (line.kind, line.name, line.status, night.exit_code) == ("notify", "summary", "failed", 4)
    assert night.summary.endswith("; must act: the operator (exit code 4) on notify summary")
    assert night.policy == "demo"


def test_a_hint_names_no_more_than_a_person_reads() -> None:
    """There are 600 time zones."""
    hint = nearest("Mars/X", [f"zone-{number:03}" for number in range(600)])
    assert hint.startswith("known: zone-000, zone-001")
    assert hint.endswith("zone-099 and 500 more")
