"""What a night asks of stores while it plans: of all images in turn, whatever one of them answers. No registry here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine

from hardening.foundation.errors import (
    ContentError,
    GoldsmithError,
    LateError,
    MalformedError,
    OutsideError,
    RefusedError,
    SilentError,
)
from hardening.foundation.settings import Judging, Settings
from images.artifact import Release
from images.catalog import KeepRule, LoadedDefinition, keep_rules
from images.context import Context
from images.ledger import Ledger, Move
from images.plan.validate import DefinitionValidator
from images.registry.answers import explain
from images.registry.release_store import RegistryStore
from images.release.publish import ELSEWHERE, LACKING, UNPROVED
from images.release.stores import store_of
from pipelines.nightly import planning
from pipelines.nightly.command import _of_tree, run_nightly
from pipelines.nightly.model import FeedNews, ImageAnswer, ImageJob, NightOrder, NightRecord, ended_with, image_failed
from pipelines.nightly.night_run import nightly
from pipelines.nightly.planning import ASKED, ASKED_AT_ONCE, BELIEVED_AFTER, PROMOTES, THOROUGH, TURN, longest_ago
from pipelines.nightly.stages import WorldStages, over
from pipelines.promotion import PromotionDecision
from tests.pipelines.cli.test_outdated import BOOTSTRAP, archive_in
from tests.support.catalogs import Catalog
from tests.support.fleets import release

NIGHT = datetime(2026, 11, 27, 2, tzinfo=UTC)
STANDS = SimpleNamespace(expires_at=NIGHT)
NAMES = [f"image-{number:03}" for number in range(2 * THOROUGH)]
NIGHTS = 4
Answers = Callable[[str, bool], object]


class Sight:
    """A plan in which nothing is to be built, over a store that answers as `answers` says; who was `asked`, and how."""

    def __init__(self, ledger: Ledger, answers: Answers) -> None:
        self.asked: list[tuple[str, bool]] = []
        self._answers = answers
        order, definition = NightOrder("night-1", NIGHT), SimpleNamespace(promote="manual")
        context = SimpleNamespace(
            now=NIGHT, ledger=ledger, policy_of=str, policy_named=lambda name: SimpleNamespace(name=name),
            definitions={name: SimpleNamespace(definition=definition) for name in NAMES},
        )  # fmt: skip
        plans = {
            name: SimpleNamespace(action="keep", artifact=SimpleNamespace(name=name, digest=name)) for name in NAMES
        }
        self.found: Any = SimpleNamespace(
            context=context, plans=plans, looked={}, job=lambda name: ImageJob(order, name)
        )

    def stands(self, _to: object, artifact: Any, *_: object, thorough: bool, candidate: object) -> object:
        """What the store says."""
        self.asked.append((artifact.digest, thorough))
        answer = self._answers(artifact.digest, thorough)
        if isinstance(answer, Exception):
            raise answer
        return answer


Look = Callable[[Answers], tuple[Sight, Any]]


def store_pointing(*digests: str) -> Any:
    """A store whose channels all name that; `asked` are those that were asked for at once."""
    asked = list[tuple[str, ...]]()

    def pointing(_repository: str, channels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        asked.append(channels)
        return dict.fromkeys(channels, digests)

    return SimpleNamespace(place="r.example/", repository=str, pointing=pointing, asked=asked)


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Look]:
    """One look at all images, by a ledger of the test's own."""
    judgement = SimpleNamespace(verdict=SimpleNamespace(allowed=True))
    monkeypatch.setattr(planning, "KnownJudge", lambda *_: SimpleNamespace(judge=lambda *_: judgement))
    monkeypatch.setattr(planning, "store_of", lambda *_: store_pointing())
    monkeypatch.setattr(planning, "days_left", lambda *_: None)
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")

    def looks_once(answers: Answers) -> tuple[Sight, Any]:
        sight = Sight(ledger, answers)
        monkeypatch.setattr(planning, "stands", sight.stands)
        return sight, planning._look_at_unchanged(sight.found, None, NAMES)  # type: ignore[arg-type]

    yield looks_once
    ledger.close()


@given(
    st.integers(1, NIGHTS * THOROUGH),
    st.lists(st.integers(-5, 200), min_size=NIGHTS, max_size=NIGHTS) | st.just([2] * NIGHTS) | st.just([0] * NIGHTS),
)
def test_whatever_the_days_of_nights_all_images_are_asked_in_turn(many: int, days: list[int]) -> None:
    """Every second night, twice a day, after months, by a clock that goes back."""
    names, now, asked = NAMES[:many] + [f"more-{n}" for n in range(many - len(NAMES))], NIGHT, set[str]()
    with TemporaryDirectory() as folder:
        ledger = Ledger.open(f"sqlite:///{folder}/ledger.sqlite")
        for pause in days[: -(-many // THOROUGH)]:
            now += timedelta(days=pause)
            tonight = longest_ago(names, {one.version: one.last for one in ledger.sights(*ASKED).seen})
            assert len(tonight) == min(THOROUGH, many)
            asked |= set(tonight)
            ledger.remember(*ASKED, tonight, now)
        ledger.close()
    assert asked == set(names)


@pytest.mark.parametrize(
    "error", [MalformedError("no manifest"), LateError("too slow"), OutsideError("the registry does not allow it")]
)
def test_a_bad_answer_about_one_image_is_that_images_alone(error: OutsideError, looks: Look) -> None:
    """The others are asked, and stand."""
    sight, _ = looks(lambda name, _: error if name == NAMES[3] else STANDS)
    failed = [name for name, one in sight.found.looked.items() if one.action == "failed"]
    assert (failed, len(sight.asked)) == ([NAMES[3]], len(NAMES))


def test_a_store_to_which_there_is_no_connection_is_asked_once(looks: Look) -> None:
    """By each of those that ask at once; and nobody is taken for asked."""
    silence = explain("Get http://r.example/v2/: dial tcp 127.0.0.1:1: connect: connection refused", "r.example")
    assert isinstance(silence, SilentError)
    assert not isinstance(explain("unknown: 500 Internal Server Error", "r.example"), SilentError)
    sight, look = looks(lambda *_: silence)
    assert len(sight.asked) <= ASKED_AT_ONCE
    assert {one.action for one in sight.found.looked.values()} == {"failed"}
    assert look.asked == set()


def test_candidate_and_stable_are_asked_at_once(looks: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each image that a night promotes: both are read by one signed document."""
    standing = SimpleNamespace(expires_at=NIGHT, warn_at=NIGHT, digest="d")
    sight, look = looks(lambda *_: standing)
    for promote, channels in (("manual", ("candidate",)), ("auto", ("candidate", "stable"))):
        store = store_pointing("d")
        monkeypatch.setattr(planning, "store_of", lambda *_, store=store: store)
        sight.found.context.definitions[NAMES[0]].definition.promote = promote
        assert look.at(NAMES[0], thorough=False).action == "unchanged"
        assert store.asked == [channels]


def rules_of(context: Context, name: str) -> object:
    """What the store of a definition's releases keeps of all of them."""
    store = store_of(context, name)
    assert isinstance(store, RegistryStore)
    return store.rules


@pytest.mark.needs("apt-get", "gpg")
def test_the_plan_of_definitions_that_were_never_built_asks_the_ledger_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For their newest artifacts: without one there is none with the same inputs, and no release. Each is also checked
    once, and its store knows what is kept of all releases without going through all definitions again.
    """
    checked, require = list[str](), DefinitionValidator.require

    def counted(validator: DefinitionValidator, loaded: LoadedDefinition) -> None:
        checked.append(loaded.name)
        require(validator, loaded)

    monkeypatch.setattr(DefinitionValidator, "require", counted)
    catalog = Catalog(tmp_path, archive_in(tmp_path / "archive"))
    catalog.define("base", BOOTSTRAP)
    catalog.settle()
    statements = list[str]()
    note: Any = lambda _connection, _cursor, statement, *_: statements.append(statement)  # noqa: E731
    numbers, asked = (4, 12), list[int]()
    for number in numbers:
        for one in range(number):
            catalog.define(f"image-{one}", "base")
        context = replace(catalog.context(), lenient=True)
        statements.clear()
        checked.clear()
        event.listen(Engine, "before_cursor_execute", note)
        try:
            plan = planning.plan_night(context, NightOrder("", context.now), keep=False)
            lines = [line for tree in plan.trees for line in _of_tree(context, tree, context.ledger.released())]
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        assert len(lines) == number + 1
        asked.append(len(statements))
        assert sorted(checked) == sorted(context.definitions)
        assert rules_of(context, "base") is rules_of(context, "image-0")
    assert asked[1] == asked[0]


def test_a_store_that_fails_for_everyone_is_left_alone_after_a_while(looks: Look) -> None:
    """Each try takes as long as the settings let it."""
    sight, _ = looks(lambda *_: OutsideError("the registry failed"))
    assert len(sight.asked) < BELIEVED_AFTER + ASKED_AT_ONCE
    assert {one.action for one in sight.found.looked.values()} == {"failed"}


def test_a_slip_of_ours_over_one_image_keeps_the_plan_of_the_others(looks: Look) -> None:
    """Its own stages will meet it again."""
    sight, _ = looks(lambda name, _: ZeroDivisionError("slip") if name == NAMES[3] else STANDS)
    assert "ZeroDivisionError" in sight.found.looked.pop(NAMES[3])
    assert all(isinstance(one, ImageAnswer) for one in sight.found.looked.values())


@pytest.mark.parametrize(("waits", "earlier"), [(True, ()), (True, (release(),)), (False, ())])
def test_a_base_that_soaks_is_no_work_and_one_to_promote_is_none_for_its_children(
    waits: bool, earlier: tuple[Release, ...], looks: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a day after each rebuild a whole catalog soaks: then nothing is read again that stands, but where an earlier
    candidate has soaked meanwhile.
    """
    base, child, grandchild = NAMES[:3]
    definition = SimpleNamespace(definition=SimpleNamespace(promote="auto"))
    monkeypatch.setattr(planning, "soak", lambda *_: PromotionDecision(waits=waits, why="candidate since today"))
    monkeypatch.setattr(planning, "earlier_candidates", lambda *_: earlier)
    sight, look = looks(lambda *_: release(1))
    context = sight.found.context
    context.definitions[base] = definition
    sight.found.looked[base] = look.at(base, thorough=False)
    context.parents = {base: None, child: base, grandchild: child}
    planned = planning._Planned(context, NightOrder("night-1", NIGHT), NIGHT, sight.found.plans, {}, sight.found.looked)
    monkeypatch.setattr(planning, "needs_of", lambda *_: ())
    plan = planned.as_trees([base, child])
    soaks = [line.status for answer in plan.settled for part in answer.parts for line in part.lines]
    assert ([tree.name for tree in plan.trees], soaks) == ([], ["soaks"]) if waits and not earlier else ([base], [])
    assert child in [answer.name for answer in plan.settled]
    planned.looked[base] = "it is not published yet"
    for looked in (planned.looked[child], PROMOTES):
        planned.settled.clear()
        planned.looked[child] = looked
        (tree,) = planned.as_trees([base, child, grandchild]).trees
        assert [(one.name, [below.name for below in one.children]) for one in tree.children] == [(child, [grandchild])]


@pytest.mark.parametrize("many", [1, THOROUGH, 10 * TURN, 1_000])
def test_a_large_catalog_is_asked_within_a_month_of_nights_too(many: int) -> None:
    """A night of a small one asks a few all the same."""
    tonight = longest_ago([f"image-{number}" for number in range(many)], {})
    assert len(tonight) * TURN >= many
    assert len(tonight) >= min(THOROUGH, many)


@pytest.mark.parametrize("lost", [ELSEWHERE, UNPROVED, LACKING])
def test_as_soon_as_one_lost_something_all_are_looked_at_thoroughly(lost: str, looks: Look) -> None:
    """A registry that was restored from a backup is mended in one night, not in a month of them."""
    sight, look = looks(lambda _, thorough: lost if thorough else STANDS)
    assert set(sight.found.looked.values()) == {lost}
    assert look.asked == set(NAMES)
    sight, look = looks(lambda *_: STANDS)
    assert len(look.asked) == THOROUGH


def test_a_policy_that_may_not_publish_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that the settings name and that is not there: mirror and feeds would be asked for nothing."""
    context = Context(Settings(state=tmp_path), NIGHT, str, str, policy="demo")
    with pytest.raises(RefusedError, match="the policy demo may not publish"):
        nightly(context)
    wrong = Settings(state=tmp_path, judging=Judging(policies=("defualt",)))
    with pytest.raises(ContentError, match=r"judging\.policies\[0\]: unknown policy: defualt"):
        nightly(Context(wrong, NIGHT, str, str))
    assert not (tmp_path / "feeds").exists()
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path))
    with pytest.raises(RefusedError, match="the policy demo may not publish"):
        run_nightly("demo", dry=True)


def test_what_was_tried_in_vain_is_tried_again_by_another_index_or_for_another_hole(tmp_path: Path) -> None:
    """What the world failed in, or a fleet, is tried again; each failure is told once, also after a kill."""
    index, ledger = ["one"], Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    stages = WorldStages(SimpleNamespace())  # type: ignore[arg-type]
    stages._bootstraps = lambda _: ["trixie"]  # type: ignore[assignment, list-item, method-assign]

    def order(minutes: int) -> NightOrder:
        made = NightOrder(f"night-{minutes}", NIGHT + timedelta(minutes=minutes), urgent=True)
        context: Any = SimpleNamespace(
            now=made.started_at, ledger=ledger, index=SimpleNamespace(state=lambda _: index[0])
        )
        stages._of_nights[made.id] = context
        return made

    def record(of: NightOrder, error: GoldsmithError | None = None, part: GoldsmithError | None = None) -> NightRecord:
        images = (image_failed(ImageJob(of, "web"), error),) if error else ()
        after = (ended_with("fleet", "shop", part),) if part else ()
        return NightRecord(of, (), images, after, of.started_at)

    found = FeedNews(urgent=("web",), fixes=("a",))
    first, second = order(0), order(15)
    for trial in (record(first, LateError("slow")), record(first, part=RefusedError("ill"))):
        assert stages.in_vain(trial, found)
        assert stages.untried(first, found) == ("web",)
    assert stages.in_vain(record(first, LateError("slow")), found), "killed before it was told"
    assert not stages.in_vain(record(second, LateError("slow")), found)
    assert stages.in_vain(record(second, RefusedError("no")), found)
    assert stages.untried(order(30), found) == ()
    assert stages.untried(order(30), FeedNews(urgent=("web",), fixes=("a, b",))) == ("web",)
    index[0] = "two"
    assert stages.untried(order(45), found) == ("web",)
    assert not stages.in_vain(record(order(45)), found), "nothing failed"
    assert stages.untried(order(60), found) == ()
    index[0], late = "three", order(75)
    feeds = ended_with("feeds", "trixie", OutsideError("EPSS answers 503"))
    assert stages.in_vain(replace(record(late, RefusedError("no")), before=(feeds,)), found)
    assert stages.untried(order(90), found) == (), "a feed fails whatever is tried"
    mirror = ended_with("index", "trixie", OutsideError("the mirror answers 503"))
    assert stages.in_vain(replace(record(late, RefusedError("no")), before=(mirror,)), found)
    assert stages.untried(order(90), found) == ("web",)
    ledger.close()


def test_a_night_names_nothing_as_over_that_pruning_would_keep(tmp_path: Path) -> None:
    """What a rollback goes to, and what the rules keep; a revoked one is nothing to go back to."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    made = [release(number) for number in range(1, 5)]
    for one in made:
        ledger.record_release(one)
        ledger.record_move(Move(one.repository, "stable", one.digest, one.published_at, "promote"))

    def named(keep: int) -> list[str]:
        own = SimpleNamespace(keep_last=None, keep_for=None, soak=timedelta())
        loaded = SimpleNamespace(definition=SimpleNamespace(lifecycle=own, promote="auto"))
        kept = keep_rules(KeepRule(keep), {"nginx": loaded})  # type: ignore[dict-item]
        now = made[-1].published_at + timedelta(days=1)
        context: Any = SimpleNamespace(ledger=ledger, now=now, definitions={"nginx": loaded}, kept=kept)
        return sorted(one.subject.digest for one in over(context))

    first, second, third, _ = (one.digest for one in made)
    assert named(0) == [first, second]
    assert named(3) == [first]
    ledger.revoke(third, "a hole", made[-1].published_at)
    assert named(0) == [first, second, third]
    ledger.close()


def test_a_night_of_some_images_rolls_only_fleets_that_become_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are looked at, and their line says why they are not rolled; what becomes an image of others is one."""
    folder = tmp_path / "content/pipelines/fleets"
    folder.mkdir(parents=True)
    head = 'title = "t"\nowner = "o"\nkind = "docker"\npolicy = "demo"\nselector = {{ app = "{0}" }}\n'
    replacements = {
        "web": 'definition = "nginx-unprivileged"', "base": 'definition = "debian-base"', "app": 'tag = "r/app:1"'
    }  # fmt: skip
    for name, to in replacements.items():
        (folder / f"{name}.toml").write_text(f"{head.format(name)}replacement = {{ {to} }}\n")
    settings = Settings(state=tmp_path, content=(tmp_path / "content",), judging=Judging(roots=(tmp_path / "content",)))
    context, rolled = Context(settings, NIGHT, str, str), list[str]()
    line = SimpleNamespace(outcome="planned", detail="1 of 1 out of policy", refused=None, rollout="")
    finished = list[str]()

    def bring(_: object, name: str, *, begins: bool) -> object:
        (rolled if begins else finished).append(name)
        return line

    monkeypatch.setattr("pipelines.nightly.stages.bring_into_policy", bring)
    monkeypatch.setattr("pipelines.nightly.stages.look_at", lambda *_: ("planned", "1 of 1 out of policy", None))
    world = WorldStages(context)
    nights = {"all": ["app", "base", "web"], "nginx-*": ["web"], "debian-base nginx-unprivileged": ["base", "web"]}
    for only, expected in nights.items():
        told = {name: world.fleet(NightOrder(only, NIGHT, only), name).lines[0].detail for name in sorted(replacements)}
        assert rolled == expected, only
        left = {name for name, detail in told.items() if f"; not rolled: --only {only} does not name" in detail}
        assert left == replacements.keys() - {*expected}
        rolled.clear()
    assert finished == []
    context.ledger.begin_rollout("base-1", "base", "ann", {}, NIGHT)
    [part] = world.fleet(NightOrder("nginx-*", NIGHT, "nginx-*"), "base").lines
    assert (rolled, finished) == ([], ["base"]), "what a killed process left is finished, and nothing begins"
    assert "; not rolled: --only nginx-* does not name" in part.detail
    line.outcome, line.rollout = "rolled", "base-1"
    [part] = world.fleet(NightOrder("nginx-*", NIGHT, "nginx-*"), "base").lines
    assert (part.status, part.detail) == ("rolled", "1 of 1 out of policy")
