"""`adopt` as a user types it: what it writes, what it refuses; and on a real engine, up to the rollout and back."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import requests

import tasks
from hardening.foundation.content import parse
from hardening.foundation.errors import ContentError, OutsideError, RefusedError, UsageError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Docker, Judging, Settings
from images.artifact import Release
from images.context import Context
from images.model import Definition
from images.registry.login import auth_config
from images.release.channels import point
from images.release.stores import store_of
from pipelines.cli import adopt as module
from pipelines.cli.adopt import AdoptLine, OnEngine, _running, adopt, show_adopted, write_new
from pipelines.cli.rollout import plan_roll, roll_back, roll_fleet, show_plan
from pipelines.cli.rollout_watch import _history, print_history
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.docker.container_spec import forced_in_place, networks
from pipelines.fleet.docker.drafts import Unadopted
from pipelines.fleet.docker.written import compose_services
from pipelines.host import embedded_registry
from pipelines.rollout.rollout_store import history
from pipelines.wiring import root_for
from tests.support.engines import busybox_image, engine, nginx_image
from tests.support.loop import Goldsmith, until
from tests.support.signing import sign_release

NOW = datetime.now(UTC)
COMPOSE = """
services:
  web:
    image: nginx:1.27
    ports: ["18080:80"]
    volumes: [data:/srv/data]
"""


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's own settings: a draft belongs into the test's folder."""
    for name in [one for one in os.environ if one.startswith("GOLDSMITH_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A user's folder without an engine, with a content root of his own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "existing_engine", lambda _settings, for_builds: None)
    return context_in(tmp_path, "")


def context_in(folder: Path, host: str) -> Context:
    root = folder / "content"
    root.mkdir()
    settings = Settings(
        state=folder / "state", content=(root,), judging=Judging(roots=(root,)), docker=Docker(host=host)
    )
    settings.state_dir.mkdir()
    return Context(settings, NOW, lambda: host, lambda: embedded_registry.registry_address(settings), actor="ana@here")


def written(line: AdoptLine) -> dict[str, str]:
    return {Path(file).name: Path(file).read_text() for file in line.files}


def test_a_compose_file_is_drafted_into_the_users_own_root(
    here: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an engine too; what is printed names the file, what is open, and what to type then."""
    (tmp_path / "compose.yaml").write_text(f"name: shop\n{COMPOSE}")
    (line,) = adopt(["compose.yaml"], context=here)
    assert line.files == (str(tmp_path / "content/pipelines/fleets/shop-web.toml"),)
    fleet = load_fleet(here.settings.roots, "shop-web")
    assert (fleet.replacement.definition, fleet.limits.method, fleet.owner) == ("nginx-unprivileged", "in_place", "ana")
    assert line.next == (
        "./goldsmith image.publish nginx-unprivileged",
        "./goldsmith image.promote nginx-unprivileged",
        "./goldsmith fleet.check shop-web",
        "./goldsmith roll.plan shop-web --adopt all",
    )
    show_adopted([line], as_json=False)
    printed = capsys.readouterr().out
    assert printed.startswith(f"shop-web: from the service web in compose.yaml\n  written: {line.files[0]}\n")
    assert "\n  to do: it does not run" in printed
    assert "\n  then: ./goldsmith roll.plan shop-web --adopt all\n" in printed


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("nginx", "docker.io/library/nginx:latest"),
        ("team/app:1@sha256:" + 64 * "a", "docker.io/team/app:1"),
        ("registry.example.com:5000/app:1", "registry.example.com:5000/app:1"),
    ],
)
def test_what_is_followed_is_a_tag_in_full(here: Context, tmp_path: Path, image: str, tag: str) -> None:
    """As Docker reads it, also where a definition is called so."""
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("nginx:1.27", image))
    (line,) = adopt(["compose.yaml"], name="shop", follow=True, context=here)
    assert load_fleet(here.settings.roots, "shop").replacement.follow == tag
    text = written(line)["shop.toml"]
    assert f"it keeps running {image}, which others make" in text.replace("\n# ", " ")
    assert "FILL IN" not in text
    (todo,) = [one for one in line.todo if "approves other registries" in one]
    assert f"name {tag.rpartition(':')[0]} in `prefixes`" in todo


@pytest.mark.parametrize("image", ["nginx@sha256:" + 64 * "a", "sha256:" + 64 * "a", 12 * "a"])
def test_what_no_tag_names_is_not_followed(here: Context, tmp_path: Path, image: str) -> None:
    """Unless --replacement names the tag, which no definition makes."""
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("nginx:1.27", image))
    with pytest.raises(UsageError, match="--follow needs a tag"):
        adopt(["compose.yaml"], name="shop", follow=True, context=here)
    with pytest.raises(UsageError, match="debian-base is your own definition"):
        adopt(["compose.yaml"], name="shop", follow=True, replacement="debian-base", context=here)
    adopt(["compose.yaml"], name="shop", follow=True, replacement="nginx:1", context=here)
    assert load_fleet(here.settings.roots, "shop").replacement.follow == "docker.io/library/nginx:1"


def test_a_dockerfile_is_drafted_with_its_definition_and_steps(here: Context, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/Dockerfile").write_text("FROM python:3.12\nCOPY app /srv/app\nUSER 1000\nCMD ['x']\n")
    (line,) = adopt(["shop/Dockerfile"], context=here)
    files = written(line)
    assert set(files) == {"shop.toml", "image.toml", "Dockerfile.j2"}
    made = parse(tomllib.loads(files["image.toml"]), Definition, "image.toml", name="shop")
    assert (made.base.golden, made.user) == ("python-runtime", "1000")
    assert "COPY app /srv/app" in files["Dockerfile.j2"]
    assert here.definitions["shop"].definition == made


def test_nothing_is_written_over(here: Context, tmp_path: Path) -> None:
    """Nor is anything written where one of the files is there: a fleet's own, or the definition."""
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (line,) = adopt(["compose.yaml"], name="shop", context=here)
    before = written(line)
    with pytest.raises(RefusedError, match="the fleet shop selects the service web in "):
        adopt(["compose.yaml"], name="other", context=here)
    Path(line.files[0]).write_text(before["shop.toml"].replace("compose.project", "compose.other"))
    with pytest.raises(UsageError, match=r"shop\.toml exists already"):
        adopt(["compose.yaml"], name="shop", definition=True, context=here)
    assert not (tmp_path / "content/images").exists()
    with pytest.raises(UsageError, match="the definition debian-base exists already"):
        adopt(["compose.yaml"], name="other", replacement="debian-base", definition=True, context=here)


def test_two_services_are_not_drafted_into_one_file(here: Context, tmp_path: Path) -> None:
    """The second would be written over the first; nothing is written."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "compose.yaml").write_text(f"name: shop\n{COMPOSE}")
    files = [str(tmp_path / folder / "compose.yaml") for folder in ("a", "b")]
    with pytest.raises(UsageError, match=r"two drafts would be .*shop-web\.toml"):
        adopt(files, context=here)
    assert not list(tmp_path.rglob("*.toml"))


def test_a_fleet_of_another_root_keeps_its_name(here: Context, tmp_path: Path) -> None:
    """Two of one name would stop every command that loads fleets."""
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    other = tmp_path / "other"
    settings = here.settings.model_copy(
        update={
            "content": (*here.settings.content, other),
            "judging": here.settings.judging.model_copy(update={"roots": (*here.settings.judging.roots, other)}),
        }
    )
    context = replace(here, settings=settings)
    adopt(["compose.yaml"], name="shop", content=str(other), context=context)
    file = other / "pipelines/fleets/shop.toml"
    file.write_text(file.read_text().replace("compose.project", "compose.other"))
    with pytest.raises(UsageError, match="the fleet shop exists already"):
        adopt(["compose.yaml"], name="shop", context=context)


def test_a_draft_that_cannot_be_written_takes_the_others_back(here: Context, tmp_path: Path) -> None:
    """What was there stays as it was."""
    files = {tmp_path / "one/a.toml": "a", tmp_path / "two/b.toml": "b"}
    (tmp_path / "two").write_text("a file where a folder is needed")
    with pytest.raises(OutsideError, match=r"two/b\.toml cannot be written"):
        write_new(files)
    assert not (tmp_path / "one/a.toml").exists()
    (tmp_path / "two").unlink()
    (tmp_path / "two").mkdir()
    (tmp_path / "two/b.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"two/b\.toml exists already"):
        write_new(files)
    assert not (tmp_path / "one/a.toml").exists()
    assert not (tmp_path / "nowhere").exists(), "written through a link"


def test_a_root_that_the_settings_do_not_name_is_told(here: Context, tmp_path: Path) -> None:
    """One that they name, and that may add no fleet, is refused: every command would fail by it."""
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (line,) = adopt(["compose.yaml"], content=str(tmp_path / "new"), context=here)
    assert any(f'content = ["{tmp_path / "new"}"]' in todo for todo in line.todo)
    settings = here.settings.model_copy(update={"judging": Judging()})
    with pytest.raises(ContentError, match=r"the settings let .* add no fleet"):
        adopt(["compose.yaml"], content=str(tmp_path / "content"), context=replace(here, settings=settings))


def test_a_draft_goes_into_the_checkout_and_says_which_setting_a_root_of_ones_own_lacks(
    here: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command would fail by a fleet of a root that may add none."""
    assert root_for(here.settings, "") == here.settings.content[0]
    assert capsys.readouterr().err == ""
    root = here.settings.content[0]
    assert root_for(here.settings.model_copy(update={"judging": Judging()}), "") == ROOT
    [line] = capsys.readouterr().err.splitlines()
    setting = f'[judging] roots = ["{root}"] in goldsmith.toml'
    assert line == f"written into the checkout: {root} may add no fleet without {setting}"


@pytest.mark.parametrize("form", ["build: app", "build: { context: app, dockerfile: Dockerfile }"])
def test_a_compose_file_that_builds_makes_one_fleet_and_one_definition(
    here: Context, tmp_path: Path, form: str
) -> None:
    """What its Dockerfile sets is known, and its steps are drafted; without that file it says what is missing."""
    (tmp_path / "app").mkdir()
    (tmp_path / "compose.yaml").write_text(f"name: shop\nservices: {{ web: {{ {form}, ports: ['8080:8080'] }} }}\n")
    (line,) = adopt(["compose.yaml"], name="missing", replacement="debian-base", context=here)
    assert f"compose builds it from {tmp_path}/app/Dockerfile, which is not there" in line.todo
    Path(line.files[0]).unlink()
    (tmp_path / "app/Dockerfile").write_text("RUN true\n")
    (line,) = adopt(["compose.yaml"], name="broken", replacement="debian-base", context=here)
    assert any("it contains no FROM" in todo and f"{tmp_path}/app/Dockerfile" in todo for todo in line.todo)
    Path(line.files[0]).unlink()
    (tmp_path / "app/Dockerfile").write_text("FROM python:3.12\nCOPY app /srv/app\nUSER 1000\nEXPOSE 8080\nCMD ['x']\n")
    (line,) = adopt(["compose.yaml"], context=here)
    files = written(line)
    assert set(files) == {"shop-web.toml", "image.toml", "Dockerfile.j2"}
    made = here.definitions["shop-web"].definition
    assert (made.base.golden, made.user, made.ports) == ("python-runtime", "1000", ("8080/tcp",))
    assert "COPY app /srv/app" in files["Dockerfile.j2"]
    assert load_fleet(here.settings.roots, "shop-web").replacement.definition == "shop-web"
    assert not any("it does not run" in todo for todo in line.todo)


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ([], UsageError, "nothing was named"),
        (["web-1"], OutsideError, "no Docker Engine runs here"),
        (["none.yaml"], ContentError, "no such file"),
        (["./web"], ContentError, "neither a compose file"),
        (["two.yaml"], UsageError, "--name names one fleet, and these are 2: "),
        (["Dockerfile"], ContentError, "a name of small letters"),
    ],
)
def test_what_cannot_be_adopted_is_one_error(
    here: Context, tmp_path: Path, what: list[str], error: type[Exception], said: str
) -> None:
    (tmp_path / "web").touch()
    (tmp_path / "two.yaml").write_text("services: {a: {image: x}, b: {image: y}}")
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    with pytest.raises(error, match=said):
        adopt(what, name="" if what == ["./web"] else "Not A Name", context=here)
    assert not list((tmp_path / "content").rglob("*"))


def test_the_command_line_takes_any_number_of_names_among_its_flags(tmp_path: Path) -> None:
    """As one types them; a flag's value is no name."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n{COMPOSE}")
    root = tmp_path / "root"
    root.mkdir()
    inv = Goldsmith(tmp_path / "state", "", (root,))
    a, b = str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")
    answer = inv.here("adopt", a, "--content", str(root), "--json", b)
    assert answer.code == 0, answer.err
    assert [line["fleet"] for line in answer.json] == ["a-web", "b-web"]
    assert inv.here("adopt", a).code == 3
    drafts = root / "pipelines/fleets"
    modes = [stat.filemode(path.stat().st_mode) for path in (drafts, *sorted(drafts.iterdir()))]
    assert modes == ["drwxr-xr-x", "-rw-r--r--", "-rw-r--r--"], "content is no state: others read it"
    words = {"adopt": ("adopt", "a", "-n", "shop", "b"), "setup": ("setup", "adopt", "a", "-n", "shop", "b")}
    seen = list[tuple[str, ...]]()
    for given in words.values():
        with patch.object(tasks._Program, "run", lambda _program, argv: seen.append(tuple(argv[1:]))):
            tasks.main(*given)
    named = ("adopt", "--what=a", "--what=b", "-n", "shop")
    assert seen == [named, ("setup", *named)], "as the launcher calls it, too"
    assert "./goldsmith adopt CONTAINER" in inv.here("adopt").err


def shown(name: str, image: str = "nginx:1.27", **labels: str) -> dict[str, Any]:
    """A container as far as `inspect` is asked for its service."""
    config = {"Image": image, "Labels": {key.replace("_", "."): value for key, value in labels.items()}}
    return {"Id": f"{name}{'0' * 12}", "Name": f"/{name}", "Config": config}


def engine_with(*containers: dict[str, Any]) -> OnEngine:
    return OnEngine("unix:///engine", containers, {one["Id"]: {} for one in containers})


def test_containers_of_one_service_or_image_become_one_fleet() -> None:
    """By name, glob or the head of an id; what a rollout keeps is not counted among the others."""
    composed = {"com_docker_compose_project": "shop", "com_docker_compose_service": "api"}
    at = engine_with(
        shown("web-2"), shown("web-1"), shown("web-1.old.r1"), shown("db", "postgres:17"), shown("x9", **composed)
    )
    found = _running(["web-[12]", "db", "x900000"], at)
    assert [(one.name, one.source) for one in found] == [
        ("web", "the containers web-1, web-2"), ("db", "the container db"), ("shop-api", "the container x9"),
    ]  # fmt: skip
    assert [len(one.others) for one in found] == [2, 3, 3]
    with pytest.raises(ContentError, match="no container named wbe-1") as refused:
        _running(["wbe-1"], at)
    assert "did you mean web-1" in refused.value.hint


def test_what_an_orchestrator_runs_is_refused() -> None:
    """It would undo each replacement."""
    with pytest.raises(RefusedError, match="web belongs to Kubernetes"):
        _running(["web"], engine_with(shown("web", io_kubernetes_pod_name="web")))


# -- on a real engine --------------------------------------------------------------------------------------------------

PAGE = """events {{}}
http {{ client_body_temp_path /tmp/body; server {{ listen 80; root /srv/site;
  location = /who {{ return 200 {0}; }} location /data/ {{ root /srv; dav_methods PUT; }} }} }}
"""
SHORT = {"min_healthy_time": "1s", "healthy_deadline": "20s", "bake_time": "0s", "settle": "0s", "drain": "2s"}


@pytest.fixture
def api(own_engine: str) -> Iterator[Any]:
    with engine(own_engine) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, own_engine: str) -> Iterator[Context]:
    made = context_in(tmp_path, own_engine)
    with closing(made.ledger):
        yield made
    embedded_registry.stop(made.settings)


def publish(context: Context, api: Any, name: str) -> Release:
    """A release of `name` in the channel stable: an nginx that answers `new`, and is not root."""
    repository = context.registry.repository(name)
    nginx_image(api, "adopt-test:new", PAGE.format("new"))
    made_of = api.create_container("adopt-test:new", labels={"goldsmith-test": "1"})["Id"]
    api.commit(made_of, repository, "new", changes=["USER 65532:65532"])
    sent = api.push(repository, "new", stream=True, decode=True, auth_config=auth_config(context.settings, repository))
    assert not [line for line in sent if "error" in line]
    digest = context.registry.get(f"{repository}:new").digest
    made = Release(name, repository, digest, digest, "", "p", "default", NOW, NOW, NOW + timedelta(days=30))
    context.ledger.record_release(made)
    sign_release(context.registry, repository, digest)
    point(store_of(context, name), made, "stable", "promote")
    return made


def start(own_engine: str, folder: Path) -> str:
    """nginx as root with a volume, a bind mount, a port of the host, an alias and compose's labels; its address."""
    (folder / "site").mkdir()
    (folder / "site/index.html").write_text("of the bind mount")
    docker = ["docker", "-H", own_engine]
    run([*docker, "network", "create", "--label", "goldsmith-test=1", "adopt-test"])
    run([*docker, "volume", "create", "--label", "goldsmith-test=1", "adopt-data"])
    labels = {"goldsmith-test": "1", "com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    mounts = ["--volume", "adopt-data:/srv/data", "--volume", f"{folder / 'site'}:/srv/site:ro"]
    network = ["--network", "adopt-test", "--network-alias", "www", "--publish", "127.0.0.1:18081:80"]
    run([*docker, "run", "-d", "--name", "shop-web-1", *words, *mounts, *network, "adopt-test:1.27"])
    run([*docker, "run", "-d", "--name", "other", "--label", "goldsmith-test=1", "adopt-test:1.27"])
    return "http://127.0.0.1:18081"


def says(url: str) -> str:
    try:
        return requests.get(url, timeout=5).text
    except requests.RequestException:
        return ""


@pytest.mark.needs("root", "docker", "docker-registry", "skopeo", "nginx")
@pytest.mark.slow
def test_a_service_that_root_ran_is_adopted_rolled_and_goes_back(
    place: Context, api: Any, own_engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan names it alone, and why; the history says from which image to which; its mounts and names are kept."""
    nginx_image(api, "adopt-test:1.27", PAGE.format("old"))
    url = start(own_engine, tmp_path)
    until(lambda: says(f"{url}/who") == "old", "the service", 60)
    before = api.inspect_container("shop-web-1")
    (line,) = adopt(["shop-web-1"], replacement="shop-web", context=place)
    seen_after = api.inspect_container("shop-web-1")
    assert seen_after["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert all(seen_after[key] == before[key] for key in ("Id", "Name", "Config", "HostConfig"))
    fleet = load_fleet(place.settings.roots, "shop-web")
    assert fleet.selector == {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    assert (fleet.limits.method, fleet.health.kind, fleet.health.port) == ("in_place", "tcp", 80)
    limits = "".join(f'{key} = "{value}"\n' for key, value in SHORT.items())
    Path(line.files[0]).write_text(Path(line.files[0]).read_text() + limits)
    publish(place, api, "shop-web")

    with pytest.raises(RefusedError, match="1 of 1 member is unknown"):
        plan_roll("shop-web", context=place)
    (left,) = plan_roll("shop-web", ["all"], context=place)[0].skipped
    assert "docker exec --user 0 shop-web-1 chown -R 65532:65532 /srv/data" in left.why
    os.chown(api.inspect_volume("adopt-data")["Mountpoint"], 65532, 65532)
    planned = plan_roll("shop-web", ["all"], context=place)
    (step,) = planned[0].steps
    assert (step.member.rpartition("/")[2], planned[0].skipped) == ("shop-web-1", ())
    named = [why.replace(" docker.io/library/", " ").partition(" adopt-test:1.27")[0] for why in step.why]
    assert named == ["it was pulled from", "the origin of"]
    capsys.readouterr()
    show_plan(planned, as_json=False, as_markdown=False)
    assert "./goldsmith roll.plan shop-web --adopt all --output FILE" in capsys.readouterr().err

    rolled = roll_fleet("shop-web", apply=True, adopt=["all"], as_owner=True, context=place)
    assert [one.outcome for one in rolled.steps] == ["new"], rolled.failure
    assert (says(f"{url}/who"), says(url)) == ("new", "of the bind mount")
    assert requests.put(f"{url}/data/page", data="written", timeout=5).status_code == 201
    after = api.inspect_container("shop-web-1")
    assert forced_in_place(after, ()) == forced_in_place(before, ())
    assert "www" in after["NetworkSettings"]["Networks"]["adopt-test"]["Aliases"]
    (seen,) = [_history(one) for one in history(place, "shop-web")]
    assert seen.adopted == (f"shop-web-1: adopt-test:1.27@{before['Image']} → {rolled.replacement}",)
    print_history([seen])
    assert "adopted shop-web-1: adopt-test:1.27@sha256:" in " ".join(capsys.readouterr().out.split())
    told = [one for one in place.ledger.audit_lines(subject=seen.rollout) if one.action == "adopt"]
    assert [one.detail for one in told] == list(seen.adopted)

    assert roll_back("shop-web", "", apply=True, context=place) == 0
    assert (says(f"{url}/who"), says(f"{url}/data/page")) == ("old", "written")
    assert [_history(one).adopted for one in history(place, "shop-web")] == [(), seen.adopted]


def test_no_container_of_a_group_may_be_a_member_already(here: Context, tmp_path: Path) -> None:
    """Whichever it is: two fleets would replace it. What does not run is called by its file."""
    (tmp_path / "content/pipelines/fleets").mkdir(parents=True)
    (tmp_path / "content/pipelines/fleets/blue.toml").write_text(
        'title = "t"\nowner = "o"\nkind = "docker"\nselector = { app = "blue" }\n'
        'replacement = { definition = "nginx" }\n'
    )
    both = tuple(
        {"Id": name, "Name": f"/{name}", "Config": {"Image": "nginx:1.27", "Labels": {"app": app}}}
        for name, app in (("web-1", "green"), ("web-2", "blue"))
    )
    for runs, which in ((True, "web-2"), (False, r"the service web in compose\.yaml")):
        found = Unadopted("web", "the service web in compose.yaml", both, {}, runs=runs)
        with pytest.raises(RefusedError, match=f"the fleet blue selects {which} already"):
            module._refuse_member(found, here.settings)
    module._refuse_member(replace(found, containers=both[:1]), here.settings)


@pytest.mark.parametrize(
    ("runs", "replacement", "follows"),
    [
        ("nginx", "", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "", "docker.io/library/nginx:1.27"),
        (f"team/nginx:1.27@sha256:{1:064x}", "", "docker.io/team/nginx:1.27"),
        ("r.example:5000/app:1", "", "r.example:5000/app:1"),
        (f"sha256:{1:064x}", "nginx:1.27", "docker.io/library/nginx:1.27"),
        (f"sha256:{1:064x}", "", None),
        (f"nginx@sha256:{1:064x}", "", None),
        ("0123456789ab", "", None),
    ],
)
def test_what_is_followed_is_a_tag_by_its_whole_name(runs: str, replacement: str, follows: str | None) -> None:
    """Never a definition that happens to be called so, and never a digest, which names nothing newer."""
    if follows:
        assert module._followed(replacement or runs, {}) == follows
        return
    with pytest.raises(UsageError, match="--follow needs a tag"):
        module._followed(replacement or runs, {})


@pytest.mark.needs("root", "docker", "docker-registry", "skopeo", "nginx")
@pytest.mark.slow
def test_an_image_of_others_is_followed_and_a_bad_one_goes_back(
    place: Context, api: Any, own_engine: str, tmp_path: Path
) -> None:
    """Nothing is rolled while the new one waits; then it is, by its digest; one that does not serve is taken back."""
    repository = f"{place.registry.address.partition('/')[0]}/others/nginx"
    tag, settings = f"{repository}:1.27", place.settings

    def push(configuration: str) -> str:
        nginx_image(api, "adopt-test:others", configuration)
        api.tag("adopt-test:others", repository, "1.27")
        login = auth_config(settings, repository)
        assert "error" not in str(api.push(repository, "1.27", auth_config=login))
        place.tag_looks.clear()  # as another command would
        return f"{repository}@{place.registry.get(tag).digest}"

    push(PAGE.format("old"))
    (tmp_path / "site").mkdir()
    labels = ["--label", "goldsmith-test=1", "--label", "app=follow"]
    port = ["--publish", "127.0.0.1:18082:80"]
    run(["docker", "-H", own_engine, "run", "-d", "--name", "follow-1", *labels, *port, tag])
    until(lambda: says("http://127.0.0.1:18082/who") == "old", "the service", 60)
    (line,) = adopt(["follow-1"], name="follow", follow=True, context=place)
    assert line.next == ("./goldsmith fleet.check follow", "./goldsmith roll.plan follow")
    file = Path(line.files[0])
    assert f'replacement = {{ follow = "{tag}" }}' in file.read_text()
    file.write_text(file.read_text() + "".join(f'{key} = "{value}"\n' for key, value in SHORT.items()))

    (left,) = plan_roll("follow", context=place)[0].skipped
    assert "waits out its cooldown" in left.why, "it was pulled from a registry that the policy does not approve"
    policies = place.settings.content[0] / "hardening/policies"
    policies.mkdir(parents=True)
    default, rule = (ROOT / "hardening/policies/default.toml").read_text(), "[running.approved_source]\n"
    (policies / "others.toml").write_text(default.replace(rule, f'{rule}prefixes = ["{repository}"]\n'))
    file.write_text(f'policy = "others"\n{file.read_text()}')
    assert plan_roll("follow", context=place)[0].skipped == ()
    new = push(PAGE.format("new"))
    assert plan_roll("follow", context=place)[0].steps == (), "it waits out its cooldown"
    place = replace(place, settings=place.settings.model_copy(update={"cooldown": timedelta(0)}))
    rolled = roll_fleet("follow", apply=True, as_owner=True, context=place)
    assert ([one.outcome for one in rolled.steps], rolled.replacement) == (["new"], new), rolled.failure
    assert says("http://127.0.0.1:18082/who") == "new"
    assert plan_roll("follow", context=place)[0].steps == ()

    push("events {}\n")  # it serves nothing
    failed = roll_fleet("follow", apply=True, as_owner=True, context=place)
    assert [one.outcome for one in failed.steps] == ["old"], failed.failure
    assert says("http://127.0.0.1:18082/who") == "new"


@pytest.mark.needs("docker", "busybox", "docker-compose")
@pytest.mark.slow
@pytest.mark.parametrize("project", ["myshop", "other"])
def test_what_compose_made_is_what_its_file_was_read_as(
    place: Context, api: Any, own_engine: str, tmp_path: Path, project: str
) -> None:
    """The same labels, ports and mounts; where it runs, under whatever project, the draft is of what runs."""
    busybox_image(api, "fleet-test:one", "one", 'HEALTHCHECK CMD ["wget", "-qO-", "http://127.0.0.1:8080/"]')
    folder = tmp_path / "My Shop"
    (folder / "site").mkdir(parents=True)
    file = folder / "compose.yaml"
    file.write_text(
        """
x-all: &all { labels: { goldsmith-test: "1" } }
services:
  web:
    <<: *all
    image: fleet-test:${TAG:-one}
    ports: ["127.0.0.1:18082:8080", "8081"]
    volumes: [data:/srv/data, ./site:/srv/site:ro]
    networks: { front: { aliases: [www] } }
    stop_grace_period: 1m5s
networks: { front: *all }
volumes: { data: *all }
"""
    )
    run(
        ["docker", "--host", own_engine, "compose", "--project-name", project, "--file", str(file), "up", "--detach"],
        passes=(*os.environ,), env={"DOCKER_HOST": own_engine},
    )  # fmt: skip
    read = compose_services(file.read_text(), file)["web"]
    made = api.inspect_container(f"{project}-web-1")
    labels = {**read["Config"]["Labels"], "com.docker.compose.project": project}
    assert (read["Name"], labels.items() <= made["Config"]["Labels"].items()) == ("/myshop-web-1", True)
    assert [one.partition(" (see")[0].replace(f"{project}_", "") for one in forced_in_place(made, ())] == [
        one.partition(" (see")[0] for one in forced_in_place(read, ())
    ]
    assert {name.removeprefix(f"{project}_") for name in networks(made)} == {"front"}
    assert (read["Config"]["StopTimeout"], made["Config"]["StopTimeout"]) == (65, 65)
    (line,) = adopt([str(file)], context=place)
    assert line.members == (f"{project}-web-1",)
    fleet = load_fleet(place.settings.roots, f"{project}-web")
    assert fleet.selector["com.docker.compose.project"] == project
    assert (fleet.health.kind, fleet.limits.drain.total_seconds()) == ("docker", 65)
