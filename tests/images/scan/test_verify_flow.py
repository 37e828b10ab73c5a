"""The built images, really run as their default user without any privilege, and checked again by command."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from hardening.foundation.content import parse
from images.engine import engine
from images.model import Definition
from images.scan.verify import load_into, try_image
from images.store.layers import tree_entries
from images.store.oci import Store
from tests.support.loop import CHILD, HEAD, NONE_BECAUSE, Goldsmith, definition, on_engine, until

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "docker", "mmdebstrap", "mirror")]

LOCKED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "network_mode": "none"}
LABEL = "goldsmith-test-verify"


@dataclass(frozen=True)
class Engine:
    """An engine that has the shipped images under names of this test."""

    client: Any

    def run(self, name: str, command: list[str], **more: Any) -> str:
        """Run `command` in an image, locked down; what it printed. Raises where it ends with anything but 0."""
        output = self.client.containers.run(
            tag(name), command, remove=True, stderr=True, labels=[LABEL], **{**LOCKED, **more}
        )
        return str(output.decode()).strip()


def tag(name: str) -> str:
    return f"goldsmith.invalid/verify/{name}:test"


@pytest.fixture(scope="module")
def shipped(house: Goldsmith, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Every image of the catalog, loaded from the store into the engine."""
    from hardening.foundation.process import pipe_from

    client = engine(house.docker_host)
    built = {line["name"]: line["digest"] for line in house("image.build", "all", "--json").json}
    for name, digest in built.items():
        layout = tmp_path_factory.mktemp(name) / "layout"
        house.store.layout_for(digest, layout, {"io.containerd.image.name": tag(name)})
        pipe_from(["tar", "-C", str(layout), "-cf", "-", "."], client.images.load)
    yield Engine(client)
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        container.remove(force=True)
    for name in built:
        client.images.remove(tag(name), force=True)


@pytest.mark.parametrize(
    ("name", "command", "said"),
    [
        ("debian-base", ["sh", "-c", "id -u; touch /x 2>&1 || true"], "65532\ntouch: cannot touch '/x'"),
        ("python-runtime", ["python3", "-c", "import os, ssl, sqlite3; print(os.getuid())"], "65532"),
        ("node-runtime", ["node", "-e", "require('crypto'); console.log(process.getuid())"], "65532"),
    ],
)
def test_a_runtime_works_without_privileges_as_its_default_user(
    shipped: Engine, name: str, command: list[str], said: str
) -> None:
    """--read-only --cap-drop ALL --security-opt no-new-privileges: the program runs, and is not root."""
    assert shipped.run(name, command).startswith(said)


def answers(url: str) -> bool:
    """Whether something answers there with 200."""
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def test_nginx_serves_without_privileges_as_its_default_user(shipped: Engine) -> None:
    """Its own entrypoint answers its own health check, with nothing writable but /tmp."""
    locked = {**LOCKED, "network_mode": "bridge"}
    container = shipped.client.containers.run(
        tag("nginx-unprivileged"), detach=True, labels=[LABEL], tmpfs={"/tmp": "mode=1777"}, **locked
    )
    container.reload()
    url = f"http://{container.attrs['NetworkSettings']['IPAddress']}:8080/healthz"
    until(lambda: answers(url), "an answer of nginx")
    status = Path(f"/proc/{container.attrs['State']['Pid']}/status").read_text()
    assert "Uid:\t65532\t65532\t65532\t65532" in status
    container.remove(force=True)


def test_the_static_image_runs_programs_and_has_no_shell(shipped: Engine, house: Goldsmith, tmp_path: Path) -> None:
    """The loader runs; sh cannot even be started, and no file of a shell or package manager is in the tree."""
    from docker.errors import APIError

    loader = "/lib64/ld-linux-x86-64.so.2"
    assert "ld.so" in shipped.run("debian-static", ["--version"], entrypoint=loader)
    with pytest.raises(APIError, match="sh"):
        shipped.run("debian-static", ["-c", "true"], entrypoint="sh")
    tree = house.store.unpack(house("image.why", "debian-static", "--json").json["last_digest"], tmp_path / "tree")
    names = {path.name for path in tree.rglob("*") if not path.is_dir()}
    assert not names & {"sh", "bash", "dash", "busybox", "perl", "apt", "apt-get", "dpkg", "dpkg-deb", "python3"}
    assert "65532" in (tree / "etc/passwd").read_text()


def test_verify_checks_the_newest_artifact_again(house: Goldsmith, tmp_path: Path) -> None:
    """Every control with its evidence, as JSON and as a table; one control alone by control.check. An image that was
    never built stops no other.
    """
    inv = house.fork(tmp_path / "state")
    answer = inv("image.verify", "debian-* bastion", "--json")
    assert (answer.code, "bastion has not been built on this machine" in answer.err) == (2, True), answer.err
    lines = answer.by_name()
    assert set(lines) == {"debian-base", "debian-static"}
    assert all(line["passed"] and len(line["checks"]) >= 16 for line in lines.values())
    assert all(check["evidence"] for line in lines.values() for check in line["checks"])
    table = inv("control.check", "debian-static", "--control", "no-shell")
    assert (table.code, "no-shell" in table.out) == (0, True)
    wrong = inv("control.check", "debian-static", "--control", "no-shel")
    assert (wrong.code, "container-static has no control no-shel" in wrong.err) == (2, True)
    assert "did you mean no-shell" in wrong.err
    assert inv.leftovers() == []


def test_an_image_of_which_a_check_is_not_known_is_verified_before_it_is_judged(
    house: Goldsmith, tmp_path: Path
) -> None:
    """None of them or all but one: neither refused nor passed unseen; the next time the ledger knows."""
    inv = house.fork(tmp_path / "state")
    [artifact] = inv.ledger.artifacts("debian-static")
    known = inv.ledger.checks(artifact.digest)
    for left in (0, -1, None):
        if left is not None:
            inv.ledger.record_checks(artifact.digest, known[:left], artifact.built_at, name=artifact.name)
        answer = inv("image.scan", "debian-static", "--policy", "demo", "--json")
        assert (answer.code, "verifying" in answer.err) == (0, left is not None), answer.err
        assert inv.ledger.checks(artifact.digest) == known
    assert inv.leftovers() == []


def test_an_image_that_no_longer_holds_its_profile_is_told(house: Goldsmith, tmp_path: Path) -> None:
    """What was right when it was built is checked by the profile of today: exit code 3, and the control's evidence."""
    root = tmp_path / "content"
    profile = root / "hardening/profiles/own.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text('title = "Of a test"\nowner = "tests"\nextends = "container-base"\n')
    definition(root, "v-own", CHILD.replace('"container-base"', '"own"'))
    inv = house.fork(tmp_path / "state").with_(root)
    assert inv("image.build", "v-own").code == 0
    profile.write_text(profile.read_text() + 'controls = [{ control = "no-shell" }]\n')
    answer = inv("image.verify", "v-own", "--json")
    assert answer.code == 3
    [line] = answer.json
    [broken] = [check for check in line["checks"] if check["outcome"] == "fail"]
    assert (line["passed"], broken["control"]) == (False, "no-shell")
    assert "bash" in broken["evidence"]
    judged = inv("image.scan", "v-own", "--policy", "demo", "--json")  # what the ledger knows lacks that control
    assert (judged.code, [r["rule"] for r in judged.json["reasons"] if r["enforcement"] == "enforce"]) == (
        3, ["no-shell"]
    )  # fmt: skip


def test_a_program_that_cannot_run_locked_down_is_refused(house: Goldsmith, tmp_path: Path) -> None:
    """The trial's status and output are the evidence of read-only-ready."""
    root = tmp_path / "content"
    definition(root, "v-writes", CHILD.replace('["true"]', '["sh", "-c", "echo state > /var/lib/state"]'))
    definition(root, "v-absent", CHILD.replace('["true"]', '["no-such-program"]'))
    inv = house.fork(tmp_path / "state").with_(root)
    answer = inv("image.build", "v-*", "--json")
    assert answer.code == 3, answer.err
    lines = answer.by_name()
    for name, said in {"v-writes": "Read-only file system", "v-absent": "no-such-program"}.items():
        [reason] = lines[name]["reasons"]
        assert reason.startswith("read-only-ready: ")
        assert said in reason
    assert inv.leftovers() == []
    assert not Store(inv.state / "store").has(lines["v-writes"]["digest"])
    after = inv("image.verify", "v-writes")
    assert (after.code, "and refused" in after.err, "| read-only-ready: " in after.err) == (3, True, True)


def test_a_check_that_breaks_stops_the_image_and_names_its_file(house: Goldsmith, tmp_path: Path) -> None:
    """Exit code 2, for whoever wrote it: nothing is known of the image, so that it is not kept either."""
    root = definition(tmp_path / "content", "v-breaks", CHILD.replace('"container-base"', '"own"'))
    control = root / "hardening/controls/breaks"
    control.mkdir(parents=True)
    (control / "control.toml").write_text(
        'title = "T"\nseverity = "low"\napplies_to = ["container"]\nowner = "us"\nrationale = "r"\ncost = "c"\n'
    )
    (control / "check.sh").write_text("echo oops >&2\nexit 3\n")
    (control / "cases.toml").write_text('[[proof]]\ntitle = "t"\nevidence = "e"\n')
    (root / "hardening/profiles").mkdir()
    profile = 'title = "T"\nowner = "us"\nextends = "container-base"\ncontrols = [{ control = "breaks" }]\n'
    (root / "hardening/profiles/own.toml").write_text(profile)
    inv = house.fork(tmp_path / "state").with_(root)
    answer = inv("image.build", "v-breaks", "--json")
    assert answer.code == 2, answer.err
    assert answer.by_name()["v-breaks"]["action"] == "failed"
    assert f"{control}/check.sh: the check ended with status 3" in answer.err
    assert "oops" in answer.err
    assert inv.ledger.artifacts("v-breaks") == ()
    (control / "check.sh").write_text("echo seen\n")
    assert inv("image.build", "v-breaks").code == 0
    (control / "check.sh").write_text("echo oops >&2\nexit 3\n")
    again = inv("image.verify", "v-breaks")
    assert again.code == 2, again.err
    assert f"{control}/check.sh: the check ended with status 3" in again.err


WAIVER = """
controls = ["no-setuid"]
subjects = ["v-waived"]
reason = "until the tool learns capabilities"
owner = "ann"
approver = "bob"
"""


def test_a_waiver_holds_until_its_last_day(house: Goldsmith, tmp_path: Path) -> None:
    """An image that breaks a waived control is built, and says so; the day after, it is refused again."""
    today = datetime.now(UTC).date()
    root = tmp_path / "content"
    definition(root, "v-waived", steps="RUN --network=none install -m 4755 /usr/bin/id /usr/local/bin/become")
    file = root / "hardening/waivers/v-waived.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f"{WAIVER}created = {today}\nexpires = {today + timedelta(days=5)}\n")
    inv = house.fork(tmp_path / "state").with_(root)
    built = inv("image.build", "v-waived", "--json").by_name()["v-waived"]
    assert built["action"] == "built"
    assert built["waived"] == [f"no-setuid is waived by v-waived until {today + timedelta(days=5)}"]
    line = inv("image.verify", "v-waived", "--json").by_name()["v-waived"]
    assert (line["passed"], [c["control"] for c in line["checks"] if c["outcome"] == "fail"]) == (True, ["no-setuid"])

    later = inv.with_(now=(datetime.now(UTC) + timedelta(days=7)).isoformat())
    assert later("image.verify", "v-waived", "--json").code == 3
    refused = later("image.build", "v-waived", "--no-cache")
    assert refused.code == 3
    assert "as hardening/waivers/v-waived-no-setuid.toml in a pull request" in refused.err


@pytest.mark.needs("trivy", "syft", "debsecan")
def test_an_enforcement_that_begins_later_counts_from_that_day(house: Goldsmith, tmp_path: Path) -> None:
    """The image is not built again for it; the gate judges what was found by the profile of the day."""
    begins = datetime.now(UTC) + timedelta(days=10)
    root = definition(tmp_path / "content", "v-staged", CHILD.replace('"container-base"', '"staged"'))
    profile = root / "hardening/profiles/staged.toml"
    profile.parent.mkdir(parents=True)
    stages = f'stages = [{{ enforcement = "enforce", from = {begins.date()} }}]'
    profile.write_text(
        'title = "Of a test"\nowner = "tests"\nextends = "container-base"\n'
        f'controls = [{{ control = "no-shell", enforcement = "warn", {stages} }}]\n'
    )
    inv = house.fork(tmp_path / "state").with_(root)
    assert inv("image.build", "v-staged").code == 0
    later = inv.with_(now=(begins + timedelta(days=1)).isoformat())
    assert later("image.build", "v-staged", "--json").by_name()["v-staged"]["action"] == "unchanged"
    said = {
        when: [
            r["enforcement"]
            for r in told("image.scan", "v-staged", "--json").json["reasons"]
            if r["rule"] == "no-shell"
        ]
        for when, told in (("today", inv), ("later", later))
    }
    assert said == {"today": ["warn"], "later": ["enforce"]}


@pytest.mark.parametrize(("command", "said"), [('"sleep", "60"', set()), ('"yes"', {"y"})])
def test_a_trial_that_does_not_end_is_ended(
    house: Goldsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: set[str]
) -> None:
    """A status that is no success, the time limit as its evidence, and nothing left on the engine.

    However much it prints, no more than a megabyte is kept.
    """
    monkeypatch.setattr("images.scan.verify.SMOKE_SECONDS", 1)
    endless = parse(tomllib.loads(CHILD.replace('"true"', command)), Definition, "image.toml", name="endless")
    work = tmp_path / "v-endless"
    work.mkdir()
    digest = house("image.why", "debian-base", "--json").json["last_digest"]
    tried = try_image(endless, house.store.config(digest), digest, house.store, work, house.docker_host)
    assert (tried.smoke is None, tried.starts) == (False, ())
    status, log = tried.smoke or (0, "")
    first, _, rest = log.partition("\n")
    assert (status, first) == (124, "it did not end within 1 s")
    assert set(rest.split()) == said
    assert len(rest) < 1 << 20
    assert on_engine(house.docker_host, [work.name]) == []


def test_layers_that_the_engine_has_are_not_sent_again_and_those_that_it_lacks_are(
    house: Goldsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as of a base that another engine built."""
    store = Store(tmp_path / "store", below=house.store)
    base = house("image.why", "debian-base", "--json").json["last_digest"]
    config, found = store.config(base), store.layers_of(base)
    for name in ("below", "own"):
        (tree := tmp_path / name).mkdir()
        (tree / f"{name}-of-this-test").write_text(str(tmp_path))
        layer, diff_id = store.write_layer(tree_entries(tree), 1)
        found.append(layer)
        config["rootfs"]["diff_ids"].append(diff_id)
    digest = store.write_image(config, found).digest
    text = CHILD.replace('"true"', '"ls", "/below-of-this-test", "/own-of-this-test"')
    wanted = parse(tomllib.loads(text), Definition, "image.toml", name="layered")
    sent = list[bool]()
    monkeypatch.setattr(
        "images.scan.verify.load_into", lambda *given, own: sent.append(own) or load_into(*given, own=own)
    )

    def tried(name: str) -> tuple[int, str] | None:
        (work := tmp_path / name).mkdir()
        ran = try_image(wanted, config, digest, store, work, house.docker_host)
        assert on_engine(house.docker_host, [work.name]) == []
        return ran.smoke

    ran = 0, "/below-of-this-test\n/own-of-this-test\n"
    assert (tried("v-lacks"), sent) == (ran, [True, False])
    (work := tmp_path / "v-has").mkdir()
    load_into(store, digest, tag("layered"), work, house.docker_host)
    try:
        assert (tried("v-knows"), sent) == (ran, [True, False, True])
    finally:
        engine(house.docker_host).images.remove(tag("layered"), force=True)


SAYS = {"Entrypoint": ["sh", "-c", "echo serving; exec sleep 60"]}
HEALTHY = {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 3600_000_000_000}}
LIMITED = "cat /sys/fs/cgroup/{pids.max,pids/pids.max,memory.max,memory/memory.limit_in_bytes} 2>/dev/null"  # v2 and v1
LIMITS = {"Entrypoint": ["bash", "-c", f"{LIMITED}; exec sleep 60"]}
UNHEALTHY = {"Healthcheck": {"Test": ["CMD", "/no/check"]}}
WRITES = {"Entrypoint": ["sh", "-c", "touch /spool/here && exec sleep 60"], **HEALTHY}


@pytest.mark.parametrize(
    ("config", "tmpfs", "outcome", "told"),
    [
        ({**SAYS, **HEALTHY}, "", "pass", "healthy as shipped\nserving"),
        ({**HEALTHY, "Entrypoint": ["/no/such"]}, "", "fail", "it cannot be started: .*/no/such"),
        ({**HEALTHY, "Entrypoint": ["sh", "-c", "echo my last words; exit 7"]}, "", "fail", "status 7\nmy last words"),
        ({**SAYS, **UNHEALTHY}, "", "fail", "did not pass within 2 s.*/no/check.*\nserving"),
        ({**SAYS, "Healthcheck": {"Test": ["NONE"]}}, "", "fail", "no health check to ask"),
        (SAYS, "", "fail", "no health check to ask"),
        (WRITES, "", "fail", "status 1\ntouch: .*/spool/here"),
        (WRITES, "/spool", "pass", "healthy"),
        ({**LIMITS, **HEALTHY}, "", "pass", "4096\n4294967296$"),
    ],
)  # fmt: skip
def test_an_image_is_started_as_it_is_shipped(
    house: Goldsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], tmpfs: str,
    outcome: str, told: str,
) -> None:  # fmt: skip
    """Its own entrypoint has to make its own health check content, with nothing writable but what it declares."""
    monkeypatch.setattr("images.scan.verify.START_SECONDS", 60 if outcome == "pass" else 2)
    store = Store(tmp_path / "store", below=house.store)
    base = house("image.why", "debian-base", "--json").json["last_digest"]
    made = store.config(base)
    digest = store.write_image({**made, "config": {**made["config"], **config}}, store.layers_of(base)).digest
    text = f'{HEAD}{f"tmpfs = [{tmpfs!r}]" if tmpfs else ""}\n[base]\ngolden = "debian-base"\n'
    wanted = parse(tomllib.loads(text), Definition, "image.toml", name="serving")
    for attempt in range(3):  # dockerd waits two seconds for the last words of what ended, and then does without them
        work = tmp_path / f"v-serving-{attempt}"
        work.mkdir()
        tried = try_image(wanted, store.config(digest), digest, store, work, house.docker_host)
        [result] = tried.starts
        assert (result.control, result.outcome, tried.smoke) == ("container-starts", outcome, None)
        assert on_engine(house.docker_host, [work.name]) == []
        if not re.fullmatch(r"it ended with status \d+", result.evidence):
            break
    assert re.search(told, result.evidence, re.DOTALL), result.evidence


def test_an_image_that_does_not_start_is_not_kept(house: Goldsmith, tmp_path: Path) -> None:
    """`image.build` refuses it with what it printed, and nothing of it is in the store; a waiver may let it pass."""
    text = 'entrypoint = ["sh", "-c", "echo no such setting; exit 3"]\nhealthcheck = { command = ["true"] }\n'
    root = definition(tmp_path / "content", "v-crashes", CHILD.replace(NONE_BECAUSE, text))
    inv = house.fork(tmp_path / "state").with_(root)
    before = inv.blobs()
    answer = inv("image.build", "v-crashes", "--json")
    assert answer.code == 3, answer.err
    [reason] = answer.by_name()["v-crashes"]["reasons"]
    assert reason.startswith("container-starts: The container gets healthy as it is shipped: it ended with status 3")
    assert reason.endswith("no such setting")
    assert inv.blobs() == before
