"""A role or a range of addresses moves everywhere it stands, as one change that is previewed, locked and audited."""

from __future__ import annotations

import os
import shutil
import signal
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from hardening.foundation.errors import ContentError, RefusedError, UsageError
from hardening.foundation.locks import only_one
from hardening.foundation.settings import ROOT, Settings
from images.context import Context
from pipelines.cli.network import apply_network, check_network
from pipelines.cli.network_moving import refactor
from pipelines.lint import content_problems
from pipelines.network.catalog import load_network
from pipelines.network.renaming import changed, move
from tests.pipelines.network.sample import HEAD, SHOP, network
from tests.support.forked import call_forked

OFFICE = "10.9.0.0/24"
MORE = (
    HEAD
    + f"""
[roles.mail]
what = "sends mail"
addresses = ["10.3.0.0/24"]

[[rules]]
from = "web"
to = "mail"
ports = ["25/tcp"]
reason = "receipts"

[[rules]]
from = "{OFFICE}"
to = "mail"
ports = ["993/tcp"]
reason = "the office reads its mail"
"""
)
SERVER = """# The database's machine.
title = "T"
owner = "us"
kind = "machine"
profile = "cis-level1"
policy = "machine"
base = { golden = "debian-server" }
machine = { listens = ["5432/tcp"] }  # PostgreSQL
"""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Context]:
    """A content root with a network of two files, and the definition of the database's machines."""
    root = tmp_path / "content"
    text = SHOP.replace('what = "the database"', 'what = "the database"\ndefinitions = ["db-server"]')
    for name, said in {"network/shop.toml": text, "network/mail.toml": MORE}.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(said)
    folder = root / "images/definitions/db-server"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(SERVER)
    with closing_context(root, tmp_path / "state") as context:
        yield context


def closing_context(root: Path, state: Path) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def opened() -> Iterator[Context]:
        settings = Settings(state=state, content=(root,))
        context = Context(settings, datetime.now(UTC), lambda: "", lambda: "", actor="ann@host")
        with closing(context.ledger):
            yield context

    return opened()


def fresh(context: Context) -> Context:
    """The same, as another command reads it."""
    return context.over_content(context.settings.roots)


def mine(context: Context) -> Path:
    return context.settings.roots[1]


def texts(context: Context) -> dict[str, str]:
    return {str(one.relative_to(mine(context))): one.read_text() for one in sorted(mine(context).rglob("*.toml"))}


def test_a_role_that_gets_another_name_loses_and_gains_nothing(at: Context) -> None:
    """The preview changes no file; with `apply` all of them, comments stay, and the audit names it."""
    before = texts(at)
    shown = refactor("web", "frontend", apply=False, context=at)
    assert (shown.loses, shown.gains, shown.applied) == ((), (), False)
    assert {Path(file).name: keys for file, keys in shown.files.items()} == {
        "mail.toml": ("rules[0].from",),
        "shop.toml": ("rules[0].to", "rules[1].from", "roles.web"),
    }
    assert texts(at) == before
    assert refactor("web", "frontend", apply=True, context=at).applied
    after = texts(at)
    assert after["network/shop.toml"] == before["network/shop.toml"].replace("[roles.web]", "[roles.frontend]").replace(
        '= "web"\n', '= "frontend"\n'
    ).replace('part = "frontend"', 'part = "web"')
    assert load_network(at.settings.roots).roles.keys() == {"frontend", "db", "mail"}
    assert [line.detail.partition(":")[0] for line in at.ledger.audit_lines(subject="web → frontend")] == [
        "refactor begins", "refactor",
    ]  # fmt: skip


def test_a_range_moves_however_it_is_written_and_says_who_loses_and_gains(at: Context) -> None:
    """In rules of every file; of a wider range only what is new is gained."""
    shown = refactor(OFFICE, "10.9.0.0/23", apply=True, context=at)
    assert shown.loses == ()
    assert shown.gains == tuple(
        f"10.9.1.0/24 → {target} {ports}"
        for target, all_ports in (
            ("10.2.0.0/24", ("5432/tcp", "9100-9104/tcp")), ("10.3.0.0/24", ("993/tcp",)),
            ("db", ("5432/tcp", "9100-9104/tcp")), ("mail", ("993/tcp",)),
        )
        for ports in all_ports
    )  # fmt: skip
    away = refactor("10.9.0.0/23", "10.10.0.0/24", apply=False, context=fresh(at))
    assert "10.9.0.0/23 → mail 993/tcp" in away.loses
    assert "10.10.0.0/24 → mail 993/tcp" in away.gains


def test_rules_move_to_a_role_that_is_there_already(at: Context) -> None:
    """Whose role stays, and who loses what it may do."""
    shown = refactor("web", "mail", apply=True, context=at)
    assert "web → db 5432/tcp" in shown.loses
    assert "mail → db 5432/tcp" in shown.gains
    after = load_network(at.settings.roots)
    assert after.roles.keys() == {"web", "db", "mail"}
    assert not [*after.out_of("web"), *after.into("web")]


def test_definitions_that_follow_the_network_move_with_it(at: Context) -> None:
    """Those that say something else already are left to `lint`."""
    lines, errors = apply_network("nftables", apply=True, context=at)
    assert ([line.done for line in lines], errors) == ([True], [])
    shown = refactor(OFFICE, "10.12.0.0/24", apply=True, context=fresh(at))
    (keys,) = [keys for file, keys in shown.files.items() if "db-server" in file]
    assert keys == ("profile_params.firewall.openings",)
    said = tomllib.loads(texts(at)["images/definitions/db-server/image.toml"])["profile_params"]["firewall"]
    assert "5432/tcp from 10.12.0.0/24" in said["openings"]
    assert content_problems(at.settings.roots, at.now.date()) == ()


def refactored_and_killed(root: Path, state: Path, old: str, new: str, left: int) -> None:
    """In a process of its own: killed as it puts the next file in its place, of which `left` stand there already."""
    real, done = Path.replace, list[Path]()

    def dying(self: Path, target: Path) -> Path:
        if len(done) == left:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(target)
        return real(self, target)

    with patch.object(Path, "replace", dying), closing_context(root, state) as context:
        refactor(old, new, apply=True, context=context)


MOVES = (("web", "frontend", 2), ("web", "mail", 4), (OFFICE, "10.12.0.0/24", 4))
"""With the number of files that each writes."""


@pytest.mark.parametrize(("old", "new", "killed"), [(*move, at) for *move, files in MOVES for at in range(files)])
def test_what_a_killed_run_left_half_done_the_same_command_ends(
    at: Context, tmp_path: Path, old: str, new: str, killed: int
) -> None:
    """Killed before the first file is in its place, or between two: the end is that of a run that was not killed."""
    root = mine(at)
    folder = root / "images/definitions/mail-server"
    folder.mkdir()
    (folder / "image.toml").write_text(SERVER)
    (root / "network/mail.toml").write_text(MORE.replace('"sends mail"', '"sends mail"\ndefinitions = ["mail-server"]'))
    assert apply_network("nftables", apply=True, context=at)[1] == []
    shutil.copytree(root, tmp_path / "whole")
    with closing_context(tmp_path / "whole", tmp_path / "other") as whole:
        assert (old, new, len(refactor(old, new, apply=True, context=whole).files)) in MOVES
        wanted = texts(whole)
    assert call_forked(refactored_and_killed, root, tmp_path / "state", old, new, killed) == -signal.SIGKILL
    assert texts(at) != wanted
    assert refactor(old, new, apply=True, context=fresh(at)).applied
    assert texts(at) == wanted
    assert not [*root.rglob(".*")]
    assert content_problems(at.settings.roots, at.now.date()) == ()


@pytest.mark.parametrize(
    ("old", "new", "error", "what"),
    [
        ("webb", "x", ContentError, "webb is not in the network"),
        ("10.7.0.0/24", "10.8.0.0/24", ContentError, "10.7.0.0/24 is not in the network"),
        ("web", "10.8.0.0/24", UsageError, "a role moves to a role"),
        ("10.9.0.1/24", "10.8.0.0/24", UsageError, "must be a range of addresses"),
        ("web", "Front End", ContentError, "a name of small letters"),
        ("web", "world", UsageError, "every address"),
        (OFFICE, "10.1.0.0/25", ContentError, "no"),
    ],
)
def test_what_cannot_be_moved_is_refused_and_nothing_is_written(
    at: Context, old: str, new: str, error: type[Exception], what: str
) -> None:
    """With the nearest names."""
    before = texts(at)
    if what == "no":
        refactor(old, new, apply=False, context=at)  # a range of rules may lie in a role's
        with pytest.raises(ContentError, match=r"10\.2\.0\.0/24 is of the role web too"):
            refactor("10.1.0.0/24", "10.2.0.0/25", apply=True, context=at)
    else:
        with pytest.raises(error) as caught:
            refactor(old, new, apply=True, context=at)
        assert what in str(caught.value)
    assert texts(at) == before


def test_two_changes_at_once_are_refused(at: Context) -> None:
    """By the lock that `network.apply` takes too."""
    with (
        only_one(at.settings.state_dir / "locks" / "network.lock", "another"),
        pytest.raises(RefusedError, match="a change of the network is already running"),
    ):
        refactor("web", "frontend", apply=True, context=at)


ODD = (
    HEAD
    + """
[[rules]]
from = "web"
to = "a"
ports = ["1/tcp"]
reason = '''
[roles.web]
'''

[ roles . "web" ]
what = "w"

[[rules]]
from = "a"
to = "web"
ports = ["1/tcp"]
reason = "r"

[roles.a]
what = "web"

[[roles.web.security_groups]]
id = "sg-12345678"
region = "eu-central-1"
"""
)


def test_however_a_role_is_written_it_moves_or_is_refused() -> None:
    """Tables that stand apart, and a text that looks like one."""
    moved = move(ODD.replace("[roles.web]\n'''", "roles.web\n'''"), "web", "new")
    said = tomllib.loads(moved.after)
    assert (said["roles"].keys(), said["roles"]["a"]["what"]) == ({"new", "a"}, "web")
    assert [(one["from"], one["to"]) for one in said["rules"]] == [("new", "a"), ("a", "new")]
    with pytest.raises(ContentError, match="cannot be renamed here"):
        move('roles = { web = { what = "w" } }\n', "web", "new")
    inside = HEAD + '[[rules]]\nfrom = "a"\nto = "web"\nreason = """\n[roles.web]\n"""\n[roles.web]\nwhat = "w"\n'
    with pytest.raises(ContentError, match="cannot be renamed here"):
        move(inside, "web", "new")


def test_only_names_that_change_are_no_change() -> None:
    """By the model alone, without files."""
    told = changed(network(SHOP), network(move(SHOP, "web", "w2").after), "web", "w2")
    assert (told.loses, told.gains) == ((), ())
    cut = changed(network(SHOP), network(SHOP.replace('"9100-9104/tcp"', '"9100-9102/tcp"')), "x", "y")
    assert cut.loses == ("10.9.0.0/24 → 10.2.0.0/24 9103-9104/tcp", "10.9.0.0/24 → db 9103-9104/tcp")


def test_what_a_definition_opens_and_listens_on_is_held_against_the_network(at: Context) -> None:
    """Until it is applied both `lint` and `network.check` tell; then only what nothing listens on."""
    (problem,) = content_problems(at.settings.roots, at.now.date())
    assert "profile_params.firewall: differs from the network's role db" in str(problem)
    assert "network.apply nftables --apply" in problem.hint
    verdicts = {(line.verdict.value, line.what) for line in check_network("nftables", context=at)}
    assert ("too-closed", "10.1.0.0/24 → db 5432/tcp") in verdicts
    assert ("too-closed", "22/tcp is listened on, and no rule lets anybody in to db") in verdicts
    broken = mine(at) / "images/definitions/db-server/image.toml"
    broken.write_text("title = 7\n")
    assert {one.file for one in content_problems(at.settings.roots, at.now.date())} == {broken}, (
        "what is broken is told once"
    )
    broken.write_text(SERVER)
    planned, _ = apply_network("nftables", apply=False, context=at)
    assert [line.done for line in planned] == [False]
    apply_network("nftables", apply=True, context=at)
    said = texts(at)["images/definitions/db-server/image.toml"]
    assert said.startswith(SERVER)
    verdicts = {(line.verdict.value, line.what) for line in check_network("nftables", context=fresh(at))}
    assert verdicts == {
        ("too-closed", "22/tcp is listened on, and no rule lets anybody in to db"),
        ("too-open", "9100-9104/tcp is let in to db, and nothing listens there"),
        ("overdue", "rules[2]: 10.9.0.0/24 → db had to be reviewed by 2026-06-30, "
                    f"{(at.now.date() - datetime(2026, 6, 30, tzinfo=UTC).date()).days} days ago (shop)"),
    }  # fmt: skip
    assert apply_network("nftables", apply=True, context=fresh(at)) == ([], [])
    (mine(at) / "images/definitions/db-server/image.toml").write_text(said.replace("5432/tcp from", "5432 from"))
    found = {line.verdict.value for line in check_network("nftables", context=fresh(at))}
    assert "unknown" in found


def test_users_without_a_network_see_nothing_of_it(tmp_path: Path) -> None:
    """No content root has the folder: `lint` is as before, and the commands say what is missing."""
    assert not (ROOT / "network").exists()
    with closing_context(ROOT, tmp_path / "state") as context:
        with pytest.raises(ContentError, match="no network is defined"):
            apply_network("all", apply=False, context=context)
        with pytest.raises(ContentError, match="no network is defined"):
            check_network("all", context=context)
