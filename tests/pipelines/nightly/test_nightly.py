"""The night through the command line: nothing new, nothing done; a newer package ends in what runs; faults stay small.

One state, one local archive and one catalog serve the whole module; its tests tell one story, in order.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from hardening.foundation.settings import Settings
from images.feeds import debsecan_format
from images.registry.login import login_file
from pipelines.demo.web_service import nginx_config
from pipelines.host import embedded_registry
from tests.support.archive import Archive
from tests.support.engines import requests_to
from tests.support.loop import CHILD, HEAD, Answer, Goldsmith, definition, until
from tests.support.scanning import LINUX

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "docker", "mirror", "docker-registry", "gpg", "dpkg-deb")]

LABEL = "goldsmith-night"
NIGHT_PAUSE = 0.05  # seconds between requests of all that a night takes, of which most builds and scans
PAGE = "/usr/share/nginx/html/night.html"
WEB = HEAD + (
    'packages = ["night-page"]\ntmpfs = ["/tmp"]\nsmoke = ["/usr/local/libexec/smoke"]\n'
    '[healthcheck]\ncommand = ["/usr/local/bin/healthz"]\ninterval = "1s"\n[base]\ngolden = "nginx-unprivileged"\n'
)
AT_ONCE = '[lifecycle]\nsoak = "0s"\n'
FLEET = """title = "Of a test"
owner = "tests"
kind = "docker"
policy = "demo"
approval = "{approval}"
selector = {{ "{label}" = "{name}" }}
replacement = {{ definition = "n-web" }}
health = {{ kind = "http", port = 8080, path = "/night.html" }}
limits = {{ min_healthy_time = "1s", healthy_deadline = "8s", bake_time = "1s", drain = "2s", settle = "2s" }}
"""


class Town:
    """A catalog over a local archive, two fleets on the engine, and the nights over them."""

    def __init__(self, house: Goldsmith, folder: Path) -> None:
        self.docker_host, self.archive = house.docker_host, Archive(folder / "archive")
        self.publish("1.0")
        root = folder / "content"
        definition(root, "n-web", WEB + AT_ONCE)
        definition(root, "n-web-child", CHILD.replace("debian-base", "n-web") + AT_ONCE)
        fleets = root / "pipelines/fleets"
        fleets.mkdir(parents=True)
        for name, approval in (("night-rolls", "none"), ("night-waits", "required")):
            (fleets / f"{name}.toml").write_text(FLEET.format(name=name, label=LABEL, approval=approval))
        sources = json.dumps([str(self.archive.sources())])
        self.inv = house.fork(folder / "state").with_(root, packages__extra_sources=sources, cooldown="0s")

    def publish(self, version: str, mode: int = 0o644) -> None:
        """The archive holds the page in a newer version."""
        page = self.archive.home / f"night-page-{version}" / PAGE.lstrip("/")
        page.parent.mkdir(parents=True)
        page.touch(mode)
        self.archive.add("night-page", version, {PAGE: f"page {version}\n"})
        self.archive.publish()

    def night(self, *more: Path, only: str = "n-*", **settings: str) -> tuple[Answer, dict[str, Any]]:
        """Run a night; its answer, and the lines by kind and name."""
        answer = self.inv.with_(*more, **settings)("nightly", "--policy", "demo", "--only", only, "--json")
        return answer, {f"{line['kind']} {line['name']}": line for line in answer.json["lines"]}

    def docker(self, *words: str) -> str:
        login = login_file(Settings(state=self.inv.state)).parent
        argv = ["docker", "--config", str(login), "-H", self.docker_host, *words]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def start(self) -> str:
        """A container for each fleet on what `stable` names, and a proxy before the first; its address."""
        image = f"{embedded_registry.known_address(Settings(state=self.inv.state))}/n-web:stable"
        hardened = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")
        common = ("run", "-d", "--network", LABEL, *hardened)
        self.docker("network", "create", "--label", LABEL, LABEL)
        for fleet in ("night-rolls", "night-waits"):
            self.docker(
                *common, "--name", fleet, "--label", f"{LABEL}={fleet}", "--network-alias", f"web-{fleet}", image
            )
        script = 'printf %s "$CONFIG" >/tmp/nginx.conf; exec nginx -e stderr -c /tmp/nginx.conf -g "daemon off;"'
        config = nginx_config("web-night-rolls", 8080)
        self.docker(
            *common, "--name", "night-proxy", "--label", LABEL, "--publish", "127.0.0.1::8080", "--env",
            f"CONFIG={config}", "--entrypoint", "sh", image, "-c", script,
        )  # fmt: skip
        return f"http://{self.docker('port', 'night-proxy', '8080/tcp').splitlines()[0]}/night.html"

    def page(self, container: str) -> str:
        """What the container itself answers, past any proxy."""
        return requests.get(f"http://{self.address(container)}:8080/night.html", timeout=600).text.strip()

    def address(self, container: str) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.docker("inspect", "--format", form, container)

    def id_of(self, container: str) -> str:
        return self.docker("inspect", "--format", "{{.Id}}", container)

    def clean(self) -> None:
        """Leave nothing on the engine, and no registry."""
        for container in self.docker("ps", "-aq", "--filter", f"label={LABEL}").split():
            self.docker("rm", "-f", "-v", container)
        for network in self.docker("network", "ls", "-q", "--filter", f"label={LABEL}").split():
            self.docker("network", "rm", network)
        settings = Settings(state=self.inv.state)
        for image in set(self.docker("images", "-q", f"{embedded_registry.known_address(settings)}/*").split()):
            self.docker("rmi", "-f", image)
        embedded_registry.stop(settings)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, house: Goldsmith) -> Iterator[Town]:
    """The town after its first night, which built what stands on the shipped catalog and released all of it."""
    made = Town(house, tmp_path_factory.mktemp("night"))
    try:
        answer, lines = made.night()
        assert set(status(lines, "fleet").values()) == {"empty"}
        assert answer.code == 3, answer.err  # for that alone: what runs there is not there yet
        yield made
    finally:
        made.clean()


@pytest.fixture(scope="module")
def url(town: Town) -> str:
    """What the first fleet serves, through its proxy, once it does."""
    found = town.start()
    with requests_to(found) as stream:
        until(lambda: stream.answers, "an answer of the service")
    return found


def status(lines: dict[str, Any], kind: str = "image") -> dict[str, str]:
    """Name → status of one kind of line."""
    return {line["name"]: line["status"] for line in lines.values() if line["kind"] == kind}


def test_the_first_night_released_the_images_and_what_they_stand_on(town: Town) -> None:
    """And no image that was not asked for; each is stable."""
    found = {release.name for release in town.inv.ledger.releases()}
    assert found == {"debian-base", "nginx-unprivileged", "n-web", "n-web-child"}
    assert town.inv("image.show", "n-web", "--json").json["channels"] == ["candidate", "stable"]


def test_a_night_in_which_nothing_is_new_does_nothing_and_says_so(town: Town, url: str) -> None:
    """No build, no release, no channel moves; the fleets are within policy; the report is written.

    What stands on the shipped catalog is promoted at once, as its definitions say; the catalog itself soaks for a day.
    """
    before = (town.inv.ledger.releases(), town.inv.blobs())
    answer, lines = town.night()
    assert answer.code == 0, answer.err
    night = answer.json
    assert (night["built"], night["published"], night["exit_code"]) == ([], [], 0)
    assert night["summary"].startswith("nothing built, nothing published, 4 unchanged; fleets: night-rolls compliant")
    assert set(status(lines).values()) == {"unchanged"}
    assert night["promoted"] == []
    assert status(lines, "channel") == {"debian-base": "soaks", "nginx-unprivileged": "soaks"}
    assert night["summary"].endswith("; soaking: debian-base, nginx-unprivileged")
    assert status(lines, "fleet") == {"night-rolls": "compliant", "night-waits": "compliant"}
    assert (town.inv.ledger.releases(), town.inv.blobs()) == before
    assert ": scanning" not in answer.err, "what enters the scans is as it was"
    assert "nothing built" in Path(night["report"]).read_text()


def test_a_newer_package_ends_in_the_running_container_and_no_request_is_lost(town: Town, url: str) -> None:
    """Exactly the images that hold it and their children are built and published; one fleet rolls, one waits.

    `image.outdated` says so before, and `image.why` names the package.
    """
    waiting, old = town.id_of("night-waits"), town.id_of("night-rolls")
    town.publish("2.0")
    said = [line for line in town.inv("image.outdated", "all", "--json").json["lines"] if line["kind"] == "package"]
    assert {(line["image"], line["what"], line["new"]) for line in said} == {
        (name, "night-page", "2.0") for name in ("n-web", "n-web-child")
    }
    why = town.inv("image.why", "n-web-child", "--json").json["changes"]
    assert [(one["name"], one["old"], one["new"]) for one in why if one["kind"] == "package"] == [
        ("night-page", "1.0", "2.0")
    ]
    with requests_to(url, pause=NIGHT_PAUSE) as stream:
        answer, lines = town.night()
        time.sleep(1)
    assert answer.code == 0, answer.err
    night = answer.json
    assert night["built"] == night["published"] == night["promoted"] == ["n-web", "n-web-child"]
    assert lines["index trixie"]["status"] == "unchanged", "image.outdated had it refreshed"
    assert "night-page 1.0 → 2.0" in lines["image n-web"]["detail"]
    assert status(lines, "fleet") == {"night-rolls": "rolled", "night-waits": "waits"}
    assert "./goldsmith roll.approve night-waits --plan " in lines["fleet night-waits"]["detail"]
    assert stream.failures == []
    assert (stream.answers[0], stream.answers[-1]) == ("page 1.0", "page 2.0")
    assert (town.page("night-rolls"), town.page("night-waits")) == ("page 2.0", "page 1.0")
    assert town.id_of("night-rolls") != old
    assert town.id_of("night-waits") == waiting


def test_a_person_rolls_what_waits(town: Town, url: str) -> None:
    """It was planned by the night's own user, who here is the same as the person: so as the owner."""
    alone = town.inv("roll.start", "night-waits", "--apply")
    assert (alone.code, "requires an approval" in alone.err) == (3, True)
    assert town.inv("roll.start", "night-waits", "--approve-as-owner", "--apply").code == 0
    assert town.page("night-waits") == "page 2.0"
    assert town.inv("fleet.check", "night-waits").code == 0


def test_a_refused_image_stops_its_children_and_nothing_else(town: Town, url: str, tmp_path: Path) -> None:
    """A planted key: exit code 3, the file is named, others go on; one whose base is refused is not published."""
    key = f"-----BEGIN PRIVATE KEY-----\\n{'MIIEvQIBADANBgkq' * 4}\\n-----END PRIVATE KEY-----\\n"
    definition(tmp_path, "n-bad", steps=f"RUN --network=none printf '%b' '{key}' > /opt/key.pem")
    definition(tmp_path, "n-bad-child", CHILD.replace("debian-base", "n-bad"))
    definition(tmp_path, "n-good")
    answer, lines = town.night(tmp_path, only="n-[bg]*")
    assert (answer.code, answer.json["exit_code"]) == (3, 3), answer.err
    assert status(lines) == {
        "debian-base": "unchanged", "n-bad": "refused", "n-bad-child": "failed", "n-good": "published",
    }  # fmt: skip
    assert "/opt/key.pem" in lines["image n-bad"]["detail"]
    assert "n-bad was refused" in lines["image n-bad-child"]["detail"]
    assert answer.json["published"] == ["n-good"]
    assert answer.err.count("n-bad breaks no-secrets") == 1, "its child's failure is the same"
    assert status(lines, "fleet") == {"night-rolls": "compliant", "night-waits": "compliant"}
    assert "n-bad" in Path(answer.json["report"]).read_text()


def test_a_broken_definition_fails_alone(town: Town, tmp_path: Path) -> None:
    """An unknown package: exit code 2, for whoever writes content; the others are looked after all the same."""
    definition(tmp_path, "n-broken", 'packages = ["night-pag"]\n' + CHILD)
    answer, lines = town.night(tmp_path, only="n-b*")
    assert answer.code == 2, answer.err
    assert status(lines) == {"debian-base": "unchanged", "n-broken": "failed"}
    assert "night-page" in answer.err, "the nearest name is suggested"


def test_without_the_mirror_the_last_index_serves_and_the_exit_code_says_outside(town: Town, url: str) -> None:
    """Exit code 4; images and fleets are looked after all the same."""
    hidden = town.archive.directory.rename(town.archive.directory.with_suffix(".gone"))
    try:
        answer, lines = town.night(only="debian-base")
    finally:
        hidden.rename(town.archive.directory)
    assert answer.code == 4, answer.err
    assert status(lines, "index") == {"trixie": "failed"}
    assert set(status(lines).values()) == {"unchanged"}
    assert set(status(lines, "fleet").values()) == {"compliant"}


def test_without_an_engine_what_needs_none_is_done(town: Town, url: str) -> None:
    """The fleets cannot be read, which is no pass: exit code 4."""
    answer, lines = town.night(only="debian-base", docker__host="unix:///nowhere.sock")
    assert answer.code == 4, answer.err
    assert set(status(lines, "fleet").values()) == {"failed"}
    assert status(lines, "index") == {"trixie": "unchanged"}
    assert Path(answer.json["report"]).exists()


def test_two_nights_at_once_are_one(town: Town) -> None:
    """The second is refused with exit code 3, and says what runs."""
    words = ("nightly", "--policy", "demo", "--only", "debian-base", "--json")
    both = [town.inv.start(*words, output=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate() for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 3], said
    assert "nightly is already running on this machine" in said[codes.index(3)][1].decode()


def test_an_unknown_name_is_said_before_anything_is_done(town: Town) -> None:
    """Exit code 2, nothing on standard output."""
    answer = town.inv("nightly", "--only", "m-*", "--json")
    assert (answer.code, answer.out) == (2, "")
    assert "no image is named m-*" in answer.err


def test_people_read_one_line_for_each_image_within_80_columns(town: Town, url: str) -> None:
    """No cell is cut; the sentence that sums the night up, and the report's path, stand below."""
    answer = town.inv("nightly", "--policy", "demo", "--only", "debian-base")
    assert answer.code == 0, answer.err
    *table, summary, judged_by, report = answer.out.rstrip().splitlines()
    assert max(len(line) for line in table) <= 80
    assert "…" not in answer.out
    assert summary.startswith("nothing built, nothing published, 1 unchanged; fleets:")
    assert judged_by == "judged by the policy demo instead of the definitions' own"
    assert report.startswith("report: ")
    assert sum(line.split()[:3] == ["image", "debian-base", "unchanged"] for line in table) == 1


def test_stable_moves_to_what_has_soaked_and_is_healthy_where_a_fleet_runs_it(
    town: Town, url: str, tmp_path: Path
) -> None:
    """Not on the day of its publication, but for an exploited hole; nor while a member that runs it is ill: exit 3."""
    town.archive.add("night-extra", "1.0")
    town.archive.publish()
    definition(tmp_path, "n-soaks", WEB.replace('["night-page"]', '["night-page", "night-extra"]'))
    (tmp_path / "pipelines/fleets").mkdir(parents=True)
    canary = FLEET.format(name="night-canary", label=LABEL, approval="none")
    canary = canary.replace('"n-web"', '"n-soaks", channel = "candidate"')
    (tmp_path / "pipelines/fleets/night-canary.toml").write_text(canary)
    answer, lines = town.night(tmp_path, only="n-soaks")
    assert (answer.code, lines["fleet night-canary"]["status"]) == (3, "empty"), answer.err
    assert answer.json["published"] == ["n-soaks"]
    assert lines["channel n-soaks"]["status"] == "soaks"
    assert "./goldsmith image.promote n-soaks" in lines["channel n-soaks"]["detail"]
    image = f"{embedded_registry.known_address(Settings(state=town.inv.state))}/n-soaks:candidate"
    run = ("run", "-d", "--network", LABEL, "--read-only", "--tmpfs", "/tmp", "--name", "night-canary")
    labelled = ("--label", f"{LABEL}=night-canary")
    town.docker(*run, *labelled, "--entrypoint", "sleep", image, "600")
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    answer, lines = town.night(tmp_path, only="n-soaks", now=tomorrow)
    assert answer.code == 3, answer.err
    assert lines["channel n-soaks"]["status"] == "refused"
    assert "fleet night-canary" in lines["channel n-soaks"]["detail"]
    town.docker("rm", "-f", "night-canary")
    town.docker(*run, *labelled, image)
    with requests_to(f"http://{town.address('night-canary')}:8080/night.html") as stream:
        until(lambda: stream.answers, "an answer of the canary")
    answer, lines = town.night(tmp_path, only="n-soaks", now=tomorrow)
    assert answer.code == 0, answer.err
    assert "n-soaks" in answer.json["promoted"]
    assert "channel n-soaks" not in lines
    town.docker("rm", "-f", "night-canary")
    town.archive.add("night-extra", "2.0")
    town.archive.publish()
    (feed := tmp_path / "feed").mkdir()
    known = {**LINUX, "openssl": {"0": ["CVE-2000-0001"]}, "night-extra-source": {"2.0": ["CVE-2099-0001"]}}
    (feed / "trixie").write_bytes(debsecan_format(known))
    (feed / "metadata.json").write_text(f'{{"date": "{datetime.now(UTC):%Y-%m-%d}"}}')
    (tmp_path / "kev.json").write_text('[{"cveID": "CVE-2099-0001"}]')
    exploited = {"feeds__debsecan": str(feed), "feeds__kev": str(tmp_path / "kev.json")}
    answer, lines = town.night(tmp_path, only="n-soaks", **exploited)
    assert (answer.code, lines["fleet night-canary"]["status"]) == (3, "empty"), answer.err
    assert answer.json["published"] == answer.json["promoted"] == ["n-soaks"]
    assert lines["channel n-soaks"]["status"] == "promoted"
    told = "at once, for it fixes CVE-2099-0001; no canary ran, for no member of the fleet night-canary is there"
    assert lines["channel n-soaks"]["detail"] == told


def test_a_night_near_the_expiry_gives_new_dates_and_builds_nothing(town: Town, url: str) -> None:
    """What runs has the same content, so that it is spared."""
    ids = [town.id_of(name) for name in ("night-rolls", "night-waits")]
    answer, lines = town.night(only="n-web", now=f"{datetime.now(UTC) + timedelta(days=24):%Y-%m-%dT%H:%M:%SZ}")
    assert answer.code == 0, answer.err
    assert answer.json["built"] == []
    assert set(status(lines).values()) == {"re-dated"}
    assert answer.json["ended_at"] > answer.json["started_at"]
    assert status(lines, "fleet") == {"night-rolls": "compliant", "night-waits": "compliant"}
    assert [town.id_of(name) for name in ("night-rolls", "night-waits")] == ids


def test_a_night_whose_replacement_is_broken_puts_the_old_one_back(town: Town, url: str) -> None:
    """A golden image that passed every check cannot serve its page: exit code 3, the very same container, none lost."""
    town.publish("3.0", mode=0o600)
    old = town.id_of("night-rolls")
    with requests_to(url, pause=NIGHT_PAUSE) as stream:
        answer, lines = town.night(only="n-web")
        time.sleep(1)
    assert answer.code == 3, answer.err
    assert answer.json["promoted"] == ["n-web"]
    assert status(lines, "fleet") == {"night-rolls": "refused", "night-waits": "waits"}
    assert "403" in answer.err, "it says what the health check saw"
    assert stream.failures == []
    assert set(stream.answers) == {"page 2.0"}
    assert len(stream.answers) > 100
    assert town.id_of("night-rolls") == old
    assert town.docker("ps", "-a", "--filter", f"label={LABEL}=night-rolls", "--format", "{{.Names}}") == "night-rolls"
