"""A newer base release is taken by the applications on it: found, their owners told, each built again once."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from hardening.foundation.errors import ContentError
from hardening.foundation.settings import REHEARSAL, Notify, Settings
from images.context import Context
from images.ledger import BaseUptake, Holder
from pipelines.fleet.applications import behind
from pipelines.fleet.members import Provenance, ReplacementImage, Seen
from pipelines.fleet.model import Fleet, FleetKind, Rebuild
from pipelines.fleet.violations import Judged
from pipelines.nightly.fleet_stage import bring_into_policy, look_at
from pipelines.rollout.base_uptake import MOST_TRIES, ONCE_MORE, take_up
from pipelines.rollout.service import automated
from pipelines.rollout.session import FleetSession
from tests.pipelines.rollout.test_notify import Hook, hook
from tests.support.fleets import NOW, fleet, judged, release, target

__all__ = ["hook"]
OLD, NEW = release(1, name="debian-base"), release(9, name="debian-base")
ON_OLD = Provenance(base=OLD, latest=NEW)
SHOP = "r.example/shop"


def application(name: str = "web-1", origin: Provenance = ON_OLD, image: str = f"{SHOP}:1") -> Judged:
    """A member that runs an application image on a golden base."""
    return judged(name, "superseded", origin=origin, image=image)


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    """The file into which the program writes what it gets."""
    return tmp_path / "heard"


def session(folder: Path, rebuild: dict[str, Any] | None, tagged: ReplacementImage | None = None) -> FleetSession:
    """A fleet whose ledger lies in `folder`; people are told by a program that writes `told`."""
    of = fleet(replacement={"tag": f"{SHOP}:1"} if tagged else {"definition": "nginx"})
    notify = Notify(command=("sh", "-c", f"cat >>{folder}/told; echo >>{folder}/told"))
    context = Context(Settings(state=folder, notify=notify, rebuild_programs=("sh", "sleep")), NOW, str, str)
    origins: Any = SimpleNamespace(target=lambda: tagged)
    made = of.model_copy(update={"rebuild": Rebuild.model_validate(rebuild) if rebuild else None})
    return FleetSession(made, context, None, lambda: NOW, "", lambda *_: origins, lambda: Seen(()))  # type: ignore[arg-type]


def by_program(heard: Path, status: int = 0) -> dict[str, Any]:
    return {"command": ["sh", "-c", f"cat >>{heard}; echo >>{heard}; echo s3cr3t >&2; exit {status}"]}


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# -- who is behind -----------------------------------------------------------------------------------------------------


def test_each_application_is_found_once_with_all_its_members() -> None:
    """By its repository, whatever the tag; golden members and those on the newest base are not among them."""
    golden = judged("web-9", "superseded", origin=Provenance(release=OLD, latest=NEW))
    current = application("web-8", Provenance(base=NEW, latest=NEW), "r.example/blog:1")
    known = [application("web-2", image=f"{SHOP}:2"), application("web-1"), golden, current, judged("web-7")]
    (found,) = behind(fleet(), known)
    assert (found.image, found.base, found.newest, found.members) == (SHOP, OLD, NEW, ("web-1", "web-2"))
    assert "r.example/shop, which 2 member(s) of web run, is based on debian-base of" in found.text


def test_of_two_builds_the_older_base_counts_unless_the_fleets_tag_has_a_newer_build() -> None:
    """What the tag points to is the newest build; who runs an older one is only to be rolled."""
    between = replace(ON_OLD, base=release(5, name="debian-base"))
    both = [application("web-1", between), application("web-2")]
    assert [one.base for one in behind(fleet(), both)] == [OLD]
    assert [one.base for one in behind(fleet(), both[::-1])] == [OLD]
    for golden, found in ((OLD, [OLD]), (NEW, [])):
        tagged = replace(target(), reference=f"{SHOP}@sha256:{'1' * 64}", golden=golden)
        assert [one.base for one in behind(fleet(), both, tagged)] == found
    elsewhere = replace(target(), reference=f"r.example/blog@sha256:{'1' * 64}", golden=NEW)
    assert [one.base for one in behind(fleet(), both, elsewhere)] == [OLD]


def test_a_release_that_is_only_dated_again_is_no_newer_base() -> None:
    """The same content under another digest has the same key, and triggers nothing again."""
    (once,) = behind(fleet(), [application()])
    dated = replace(NEW, digest=f"sha256:{'7' * 64}", published_at=NOW)
    (again,) = behind(fleet(), [application(origin=replace(ON_OLD, latest=dated))])
    assert once.key == again.key
    assert behind(fleet(), [application(origin=Provenance(base=NEW, latest=dated))]) == ()


# -- what is done ------------------------------------------------------------------------------------------------------


def test_the_owner_is_told_and_the_program_asked_once(tmp_path: Path, heard: Path) -> None:
    """However often a run comes; the message is on its standard input, and an audit line says so."""
    at = session(tmp_path, by_program(heard))
    for _ in range(3):
        (line,) = take_up(at, [application()], apply=True)
    assert (line.state, line.tries, line.image, line.owner) == ("asked", 1, SHOP, "platform team")
    (message,) = lines_of(heard)
    assert message["base"] == {
        "name": "debian-base", "reference": f"{NEW.repository}@{NEW.digest}", "was": f"{OLD.repository}@{OLD.digest}",
    }  # fmt: skip
    assert (message["event"], message["image"], message["members"]) == ("rebuild", SHOP, ["web-1"])
    (told,) = lines_of(tmp_path / "told")
    assert (told["event"], told["fleet"]) == ("rebuild", "web")
    actions = [one.action for one in at.context.ledger.audit_lines(subject="web")]
    assert actions == ["tell of a newer base", "ask for a rebuild"]


def test_without_apply_nothing_is_told_or_asked(tmp_path: Path, heard: Path) -> None:
    """It is only shown."""
    at = session(tmp_path, by_program(heard))
    assert [line.state for line in take_up(at, [application()], apply=False)] == ["due"]
    assert (lines_of(heard), lines_of(tmp_path / "told"), at.context.ledger.audit_lines()) == ([], [], ())


def test_a_rehearsal_tells_and_asks_nobody_and_says_so(
    tmp_path: Path, heard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No try is counted: the same directory may be used for real later."""
    at = session(tmp_path, by_program(heard))
    (tmp_path / REHEARSAL).touch()
    assert [(line.state, line.tries) for line in take_up(at, [application()], apply=True)] == [("due", 0)]
    assert (lines_of(heard), lines_of(tmp_path / "told"), at.context.ledger.audit_lines()) == ([], [], ())
    assert "rehearsal, so no message is sent about web: rebuild, and no rebuild is requested" in capsys.readouterr().err
    assert take_up(at, [], apply=True) == ()
    assert capsys.readouterr().err == ""


def test_without_a_program_or_webhook_the_owner_is_told_once(tmp_path: Path) -> None:
    """Who builds it is the owner."""
    at = session(tmp_path, None)
    states = [take_up(at, [application()], apply=apply)[0].state for apply in (False, True, True)]
    assert states == ["untold", "told", "told"]
    assert len(lines_of(tmp_path / "told")) == 1


def test_the_next_base_release_is_another_reason(tmp_path: Path, heard: Path) -> None:
    """Once for each; and once for an application that several fleets run."""
    at = session(tmp_path, by_program(heard))
    newer = replace(ON_OLD, latest=release(12, name="debian-base"))
    for origin in (ON_OLD, newer, newer):
        take_up(at, [application(origin=origin)], apply=True)
    other = replace(at, fleet=at.fleet.model_copy(update={"name": "blue"}))
    (line,) = take_up(other, [application(origin=newer)], apply=True)
    assert line.state == "asked"
    assert len({one["key"] for one in lines_of(heard)}) == len(lines_of(heard)) == 2
    assert [one["fleet"] for one in lines_of(tmp_path / "told")] == ["web", "web", "blue"]


def test_what_fails_is_tried_by_later_runs_and_then_needs_a_person(tmp_path: Path, heard: Path) -> None:
    """So often and no more, until somebody asks by hand; what the program prints is kept nowhere."""
    at = session(tmp_path, by_program(heard, status=3))
    states = [take_up(at, [application()], apply=True)[0].state for _ in range(MOST_TRIES + 2)]
    assert states == ["failing"] * (MOST_TRIES - 1) + ["failed"] * 3
    assert len(lines_of(heard)) == MOST_TRIES
    kept = [*at.context.ledger.audit_lines(), *take_up(at, [application()], apply=False)]
    assert "sh ended with status 3" in str(kept)
    assert "s3cr3t" not in str(kept)
    mended = replace(at, fleet=at.fleet.model_copy(update={"rebuild": Rebuild.model_validate(by_program(heard))}))
    (line,) = take_up(mended, [application()], apply=True, most_tries=ONCE_MORE)
    assert (line.state, line.detail) == ("asked", "")


def test_a_try_that_a_crash_cut_off_is_counted_and_repeated_with_its_key(tmp_path: Path, heard: Path) -> None:
    """The ledger's line stands before anything is done."""
    at = session(tmp_path, by_program(heard))
    wanted = BaseUptake("rebuild", f"web/{SHOP}", NEW.content, "web", NOW)
    assert at.context.ledger.begin_uptake(wanted, MOST_TRIES) == replace(wanted, tries=1)
    (line,) = take_up(at, [application()], apply=True)
    assert (line.state, line.tries, len(lines_of(heard))) == ("asked", 2, 1)
    assert at.context.ledger.begin_uptake(wanted, MOST_TRIES) is None


def test_two_processes_make_no_try_at_the_same_time(tmp_path: Path, heard: Path) -> None:
    """While one asks or tells, another that comes by does neither."""
    at = session(tmp_path, None)
    inner: list[str] = []

    def others() -> None:
        again = replace(at, fleet=at.fleet.model_copy(update={"rebuild": Rebuild.model_validate(by_program(heard))}))
        (line,) = take_up(again, [application()], apply=True)
        inner.append(line.state)

    key = [f"{kind} {NEW.content}" for kind in (f"told web/{SHOP}", f"rebuild {SHOP}")]
    held = [Holder(one, "another", "try") for one in key]
    for one in held:
        at.context.ledger.acquire_lease(one, timedelta(minutes=5))
    others()
    assert (inner, lines_of(heard), lines_of(tmp_path / "told")) == (["due"], [], [])
    for one in held:
        at.context.ledger.release_lease(one)
    others()
    assert (inner[-1], len(lines_of(heard)), len(lines_of(tmp_path / "told"))) == ("asked", 1, 1)


def test_a_try_that_fails_late_does_not_undo_one_that_succeeded(tmp_path: Path) -> None:
    """Whatever the order in which they end, the first success stands."""
    ledger, wanted = session(tmp_path, None).context.ledger, BaseUptake("rebuild", "web/x", NEW.content, "web", NOW)
    first, second = (ledger.begin_uptake(wanted, MOST_TRIES) for _ in range(2))
    assert first
    assert second
    ledger.end_uptake(first, "", done=True)
    ledger.end_uptake(second, "it broke", done=False)
    assert ledger.uptake(wanted) == replace(second, done=True)


def test_a_fleet_whose_program_is_broken_keeps_no_other_from_asking(tmp_path: Path, heard: Path) -> None:
    """Each fleet's tries are counted for itself; what one has asked for, no other asks for again."""
    broken = session(tmp_path, {"command": ["sh", "-c", "exit 3"]})
    for _ in range(MOST_TRIES):
        (line,) = take_up(broken, [application()], apply=True)
    assert line.state == "failed"
    changed = {"name": "blue", "rebuild": Rebuild.model_validate(by_program(heard))}
    (line,) = take_up(replace(broken, fleet=broken.fleet.model_copy(update=changed)), [application()], apply=True)
    assert (line.state, line.tries, len(lines_of(heard))) == ("asked", 1, 1)
    assert take_up(broken, [application()], apply=False)[0].state == "asked"


def test_a_program_that_the_settings_do_not_name_is_not_run(tmp_path: Path, heard: Path) -> None:
    """Whoever writes a fleet's file runs nothing on this machine by it."""
    at = session(tmp_path, by_program(heard))
    unnamed = at.context.settings.model_copy(update={"rebuild_programs": ("/bin/sh",)})
    (line,) = take_up(replace(at, context=replace(at.context, settings=unnamed)), [application()], apply=True)
    assert (line.state, line.detail) == ("failing", "rebuild.command: sh is not one of the settings' rebuild_programs")
    assert lines_of(heard) == []


def test_who_was_told_by_nobody_is_told_by_a_later_run(tmp_path: Path) -> None:
    """Where no target takes the message, or none is set."""
    at = session(tmp_path, None)
    for notify, detail in (
        (Notify(), ""),
        (Notify(command=("false",)), "no target of [notify] took the message"),
    ):
        settings = at.context.settings.model_copy(update={"notify": notify})
        for _ in range(2):
            (line,) = take_up(replace(at, context=replace(at.context, settings=settings)), [application()], apply=True)
            assert (line.state, line.detail) == ("untold", detail)
    assert (take_up(at, [application()], apply=True)[0].state, len(lines_of(tmp_path / "told"))) == ("told", 1)


@pytest.mark.parametrize(("status", "state"), [(204, "asked"), (500, "failing")])
def test_a_webhook_gets_the_message_and_its_address_is_written_nowhere(
    tmp_path: Path, hook: Hook, status: int, state: str
) -> None:
    """It stands in a file, like that of notifications."""
    (tmp_path / "address").write_text(f"{hook.address}\n")
    hook.status = status
    at = session(tmp_path, {"webhook_file": str(tmp_path / "address"), "timeout": "2s"})
    (line,) = take_up(at, [application()], apply=True)
    assert line.state == state
    assert {json.loads(body)["image"] for _, body in hook.got} == {SHOP}
    assert "s3cr3t" not in str([line, *at.context.ledger.audit_lines()])


def test_a_fleet_of_a_tag_asks_what_the_tag_points_to(tmp_path: Path, heard: Path) -> None:
    """A build on the newest base is there: nothing to ask for."""
    tagged = replace(target(), reference=f"{SHOP}@sha256:{'1' * 64}", golden=NEW)
    assert take_up(session(tmp_path, by_program(heard), tagged), [application()], apply=True) == ()


def test_a_tag_that_is_not_there_keeps_no_application_from_being_found(tmp_path: Path, heard: Path) -> None:
    """Who plans a rollout to it is told."""
    tagged = replace(target(), golden=None)

    def target_of() -> ReplacementImage:
        raise ContentError("no such tag")

    at = session(tmp_path, by_program(heard), tagged)
    broken: Any = SimpleNamespace(target=target_of)
    (line,) = take_up(replace(at, look=lambda *_: broken), [application()], apply=True)
    assert line.state == "asked"


def test_an_automated_run_tells_and_asks_and_says_so(
    tmp_path: Path, heard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a fleet in which nothing is to be replaced."""
    at = session(tmp_path, by_program(heard))
    fine = replace(application(), reasons=())
    monkeypatch.setattr("pipelines.rollout.service.check", lambda _: (fine,))
    line = automated(at, apply=True)
    assert line.outcome == "compliant"
    assert line.detail.startswith("1 member(s) within policy; r.example/shop on debian-base of")
    assert line.detail.endswith(": rebuild asked")
    assert len(lines_of(heard)) == 1


@pytest.mark.parametrize("status", [0, 3])
def test_a_night_that_finds_nothing_to_roll_tells_and_asks_once(
    status: int, tmp_path: Path, heard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only looks, for nothing is to be rolled; a try that fails counts once a night. The dry run tells nobody."""
    at = session(tmp_path, by_program(heard, status))
    fine = replace(application(), reasons=())
    monkeypatch.setattr("pipelines.rollout.service.check", lambda _: (fine,))
    monkeypatch.setattr("pipelines.nightly.fleet_stage.fleet_session", lambda *_, **__: nullcontext(at))
    assert look_at(at.context, "web")[1].endswith(": rebuild due")
    assert lines_of(heard) == []
    line = bring_into_policy(at.context, "web")
    assert line.outcome == "compliant"
    assert f": rebuild {'failing' if status else 'asked'}" in line.detail
    assert "rebuild due" not in line.detail
    assert len(lines_of(heard)) == 1


@pytest.mark.parametrize(
    ("rebuild", "said"),
    [
        ({}, "exactly one of command and webhook_file"),
        ({"command": ["x"], "webhook_file": "/y"}, "exactly one of command and webhook_file"),
        ({"command": ["x"], "timeout": "11m"}, "at most 10m"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_the_fleets_file(rebuild: dict[str, Any], said: str) -> None:
    """Before anything is done."""
    with pytest.raises(ValidationError, match=said):
        Rebuild.model_validate(rebuild)


def test_only_containers_have_application_images() -> None:
    """Said where the file is read."""
    ec2 = fleet().model_dump(mode="json", exclude={*FleetKind, "health", "limits"}) | {"kind": "ec2"}
    with pytest.raises(ValidationError, match="rebuild is for application images"):
        Fleet.model_validate(ec2 | {"rebuild": {"command": ["x"]}})


def test_an_hour_long_answer_of_a_program_is_cut_off(tmp_path: Path) -> None:
    """It is asked to begin, not to build."""
    at = session(tmp_path, {"command": ["sleep", "60"], "timeout": "1s"})
    (line,) = take_up(at, [application()], apply=True)
    assert (line.state, line.tries) == ("failing", 1)
