"""A fresh checkout with no feed in its settings: Debian's tracker judges, which a local server plays by its own name.

Each command runs in mounts of its own, where /etc/hosts leads the tracker's name to this machine; it is spoken to by
HTTPS on its own port, with a certificate that only these commands trust.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardening.foundation.settings import ROOT, Settings
from images.feeds import debsecan_format
from pipelines.host import embedded_registry
from tests.support.checkouts import copy_checkout
from tests.support.engines import engine, nginx_image
from tests.support.hostile import Hostile, Reply, hostile
from tests.support.loop import Answer, Goldsmith

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "docker", "mirror", "docker-registry", "unshare")]

TRACKER = "security-tracker.debian.org"
ADDRESS = f"https://{TRACKER}/tracker/debsecan/release/1/trixie"
HERE = "127.77.0.1"  # of this machine, where nothing else is
DATA = debsecan_format({"openssl": {"0.9-1": ["CVE-1999-0001"]}, "linux": {"2.2-1": ["CVE-1999-0002"]}})
FIXED = {"trixie": {"status": "resolved", "fixed_version": "0.9-1", "urgency": "low"}}
ALL = {"openssl": {"CVE-1999-0001": {"releases": FIXED}}, "linux": {"CVE-1999-0002": {"releases": FIXED}}}
IN_PLACE = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


class Clone:
    """A state in which the catalog is built, and the settings that a checkout has from the start."""

    def __init__(self, house: Goldsmith, folder: Path, ca: Path) -> None:
        default = {
            "feeds__debsecan": "", "feeds__tracker": "", "feeds__trivy": "",
            "judging__policies": '["default", "machine"]', "judging__floor": "default",
            "kinds": '["container", "machine"]',
        }  # fmt: skip
        inv = house.fork(folder / "state").with_(**default)
        world = {
            "REQUESTS_CA_BUNDLE": str(ca), "NO_PROXY": TRACKER,
            "TRIVY_DB_REPOSITORY": f"{HERE}:9/trivy-db",  # trivy's database cannot be had
        }  # fmt: skip
        self.inv = Goldsmith(inv.state, inv.docker_host, inv.content, {**inv.settings, **world})
        self.hosts = folder / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost\n{HERE} {TRACKER}\n")

    def __call__(self, *words: str) -> Answer:
        return self.inv(*words, prefix=(*IN_PLACE, str(self.hosts)))


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Hostile]:
    """Debian's tracker, as far as a client can tell: neither an ETag nor a Last-Modified."""
    with hostile(tmp_path, at=(HERE, 443), name=TRACKER) as server:
        server["/tracker/debsecan/release/1/trixie"] = Reply(DATA)
        server["/tracker/data/json"] = Reply(json.dumps(ALL).encode())
        yield server


@pytest.fixture
def clone(house: Goldsmith, tmp_path: Path) -> Iterator[Clone]:
    made = Clone(house, tmp_path, tmp_path / "hostile.pem")
    yield made
    embedded_registry.stop(Settings(state=made.inv.state))


def test_with_no_settings_an_image_is_published_by_the_default_policy(tracker: Hostile, clone: Clone) -> None:
    """By the tracker alone, where trivy's own database cannot be had."""
    answer = clone("image.publish", "debian-base", "--json")
    assert answer.code == 0, answer.err
    assert [(line["name"], line["action"]) for line in answer.json] == [("debian-base", "published")]
    scan = clone.inv.ledger.scan(clone.inv.ledger.releases("debian-base")[0].content)
    assert scan
    said = {report.scanner: report for report in scan.reports}
    assert (said["debsecan"].data_source, said["debsecan"].sample) == (ADDRESS, False)
    assert (said["matcher"].data_source, said["matcher"].outcome) == (f"https://{TRACKER}/tracker/data/json", "pass")
    assert f"{HERE}:9/trivy-db is unavailable" in said["trivy"].reason
    verdict = clone.inv.ledger.verdict(clone.inv.ledger.releases("debian-base")[0].content)
    assert verdict
    assert (verdict.policy, verdict.allowed) == ("default", True)
    assert [asked.headers["User-Agent"] for asked in tracker.asked] == ["goldsmith"] * 2


def test_the_first_hour_of_the_readme_works_line_by_line(
    tracker: Hostile, clone: Clone, own_engine: str, tmp_path: Path
) -> None:
    """Typed in one shell in a fresh checkout, up to the report; the catalog is built and nginx:1.27 pulled already."""
    [lines] = re.findall(r"## The first hour\n.*?```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(lines.splitlines()) == 12
    quick = """printf '\\nbake_time = "1s"\\nmin_healthy_time = "1s"\\n' >> ../golden/pipelines/fleets/web.toml\n"""
    script = re.sub(r"(?m)^(\./goldsmith adopt .*\n)", lambda line: line[1] + quick, lines)
    inv = clone.inv.with_(docker__host=own_engine)
    environment = {key: value for key, value in inv.environment.items() if not key.endswith(("_CONTENT", "__ROOTS"))}
    with engine(own_engine) as api:
        nginx_image(api, "nginx:1.27", "events {} http { server { listen 80; location / { return 200 old; } } }")
        try:
            done = subprocess.run(
                [*IN_PLACE, str(clone.hosts), "sh", "-ec", script], cwd=copy_checkout(tmp_path / "goldsmith"),
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            assert "1 member(s) within policy" in done.stdout + done.stderr
            report = Path(done.stdout.split()[-1]).read_text()
            for said in ("nothing is out of policy", "<b>1</b>member running"):
                assert said in report
            acts = report.partition('id="act"')[2].partition("<h2")[0]
            assert "Nothing to do." in acts or "<li>" in acts
            assert not re.search(r"\bweb\b", acts), "of other images there may be something to do"
        finally:
            for one in api.containers(all=True, filters={"label": "app=web"}):
                api.remove_container(one["Id"], force=True)


def test_offline_the_refusal_names_the_address_and_what_to_type_without(clone: Clone, tmp_path: Path) -> None:
    """Nobody listens there. What the hint says is typed, and it judges."""
    (tmp_path / "hostile.pem").touch()
    answer = clone("image.publish", "debian-base", "--json")
    assert answer.code == 3, answer.err
    said = " ".join(answer.err.split())
    assert f"{ADDRESS} does not answer: ConnectionError, which this policy does not accept" in said
    assert f"trivy: {HERE}:9/trivy-db is unavailable" in said
    assert "to try Goldsmith without: ./goldsmith image.scan debian-base --policy demo" in said
    assert clone.inv.ledger.releases() == ()
    tried = clone("image.scan", "debian-base", "--policy", "demo", "--json")
    assert (tried.code, tried.json["allowed"]) == (0, True), tried.err
    assert any(report["sample"] and ADDRESS in report["data_source"] for report in tried.json["reports"])


def test_offline_all_containers_are_built_and_one_line_says_why_machines_wait(clone: Clone, tmp_path: Path) -> None:
    """Exit code 0: what can be done is done. A machine by its name is refused, in full."""
    (tmp_path / "hostile.pem").touch()
    answer = clone("image.build", "all", "--json")
    assert answer.code == 0, answer.err
    assert {"debian-base", "nginx-unprivileged"} <= set(answer.by_name())
    assert "debian-server" not in answer.by_name()
    [line] = [line for line in answer.err.splitlines() if "left out" in line]
    assert ADDRESS in line
    alone = clone("image.build", "debian-server")
    assert alone.code == 3, alone.err
    assert "./goldsmith image.build debian-server --policy demo" in " ".join(alone.err.split())
    doctor = clone("doctor")
    assert "debsecan" in doctor.out
