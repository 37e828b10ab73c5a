"""The build through the command line: reproducible, no more than changed, refused where a control breaks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.archive import Archive
from tests.support.loop import CHILD, HEAD, TOMORROW, Goldsmith, definition, kill_when, on_engine, processes, until

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "docker", "mmdebstrap", "mirror")]

ALL = {"debian-base", "debian-static", "nginx-unprivileged", "node-runtime", "python-runtime"}
ON_BASE = ALL - {"debian-static"}


def digests(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["name"]: line["digest"] for line in lines}


def actions(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["name"]: line["action"] for line in lines}


class Killed:
    """Builds that die by kill -9, with what of theirs was in work then."""

    def __init__(self, inv: Goldsmith) -> None:
        self.inv, self.work = inv, inv.state / "work"
        self.names: set[str] = set()

    def at(self, name: str, condition: Callable[[], object], what: str) -> None:
        """Kill a build, which takes along its processes and mounts."""
        running = self.inv.start("image.build", name, "--no-cache")
        kill_when(running, condition, what)
        self.names.update(path.name for path in self.work.iterdir() if path.is_dir())
        assert self.names
        until(lambda: not processes(str(self.inv.state)), "the end of everything that was started")
        assert str(self.inv.state) not in Path("/proc/mounts").read_text()


@pytest.mark.needs("faketime")
def test_the_same_inputs_give_the_same_content_on_any_day_and_after_a_kill(house: Goldsmith, tmp_path: Path) -> None:
    """A static one and children, built again from nothing but their inputs, with the clock a day on, after a build was
    killed inside mmdebstrap, of which nothing is left; `test_reproduce.py` does so with the base and the other child.
    """
    first = digests(house("image.build", "all", "--json").json)
    again = house.fork(tmp_path / "again")
    blobs, killed = again.blobs(), Killed(again)
    work = killed.work
    killed.at("debian-base", lambda: work.exists() and processes("mmdebstrap", str(work), "dpkg"), "mmdebstrap")
    assert not [*work.glob("*/store/blobs/sha256/*")]
    later = again("image.build", "*ti*", "--no-cache", "--json", prefix=TOMORROW)
    assert later.code == 0, later.err
    built = max(artifact.built_at for artifact in again.ledger.artifacts())
    assert built > datetime.now(UTC) + timedelta(hours=23), "the clock was not moved"
    on_tomorrow = {"debian-static", "node-runtime", "python-runtime"}
    assert actions(later.json) == {"debian-base": "unchanged", **dict.fromkeys(on_tomorrow, "built")}
    assert digests(later.json).items() <= first.items()
    assert again.blobs() == blobs
    assert again.leftovers() == []


def test_no_content_carries_a_date_but_that_of_its_packages(house: Goldsmith) -> None:
    """No label, no variable, no history line says when it was built or when it expires."""
    today = datetime.now(UTC)
    for line in house("image.build", "all", "--json").json:
        config = house.store.config(line["digest"])
        text = json.dumps([config, house.store.read_json(line["digest"]).get("annotations", {})])
        assert f"{today:%Y-%m-%d}" not in text
        assert not config["config"].get("Labels")
        created = datetime.fromisoformat(config["created"])
        assert created == max(datetime.fromisoformat(item["created"]) for item in config["history"])


def test_nothing_changed_builds_nothing_and_says_why(house: Goldsmith) -> None:
    """The second build names, for each image, the input digest and the day it was built."""
    answer = house("image.build", "all", "--json")
    assert answer.code == 0
    assert actions(answer.json) == dict.fromkeys(ALL, "unchanged")
    assert all("was built on" in line["reasons"][0] for line in answer.json)
    assert actions(house("image.plan", "all", "--json").json) == dict.fromkeys(ALL, "unchanged")
    assert "would now be: unchanged" in house("image.why", "debian-base").out


class Newer:
    """A signed archive laid over the real one, with newer versions of real packages."""

    def __init__(self, house: Goldsmith, folder: Path) -> None:
        self.archive = Archive(folder)
        self.sources = self.archive.sources()
        self.pool = house.state / "apt/pool"
        self.house = house.with_(packages__extra_sources=json.dumps([str(self.sources)]), cooldown="0s")

    def release(self, name: str) -> tuple[str, str]:
        """Publish a newer version of a package that was built in; the old and the new version."""
        [deb] = self.pool.glob(f"*/{name}_*_all.deb")
        tree = self.archive.home / name
        subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
        control = tree / "DEBIAN/control"
        lines = control.read_text().splitlines()
        old = next(line.split(" ")[1] for line in lines if line.startswith("Version: "))
        new = f"{old}+newer1"
        control.write_text("\n".join([line.replace(f"Version: {old}", f"Version: {new}") for line in lines]) + "\n")
        target = self.archive.directory / f"{name}_{new.replace(':', '')}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(target)], check=True)
        self.archive.publish()
        return old, new


def package_changes(line: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(c["name"], c["old"], c["new"]) for c in line["changes"] if c["kind"] == "package"]


def test_a_newer_package_rebuilds_exactly_what_holds_it(house: Goldsmith, tmp_path: Path) -> None:
    """Plan and why name old and new version; a package of a child touches only the child, one of the base all on it."""
    newer = Newer(house.fork(tmp_path / "state"), tmp_path / "archive")
    inv = newer.house

    old, new = newer.release("readline-common")
    plan = inv("image.plan", "all", "--json").by_name()
    assert {name for name, line in plan.items() if line["action"] == "build"} == {"python-runtime"}
    assert package_changes(plan["python-runtime"]) == [("readline-common", old, new)]
    assert plan["python-runtime"]["why"] == [f"package readline-common {old} → {new}"]
    why = inv("image.why", "python-runtime", "--json").json
    assert (why["would"], package_changes(why)) == ("build", [("readline-common", old, new)])
    built = inv("image.build", "all", "--json")
    assert built.code == 0, built.err
    assert actions(built.json) == {**dict.fromkeys(ALL, "unchanged"), "python-runtime": "built"}
    assert built.by_name()["python-runtime"]["reasons"] == [f"package readline-common {old} → {new}"]
    assert all("was built on" in line["reasons"][0] for line in built.json if line["action"] == "unchanged")
    held = {package.name: package.version for package in newest(inv, "python-runtime")}
    assert held["readline-common"] == new

    old, new = newer.release("ncurses-base")
    assert set(actions(inv("image.plan", "all", "--json").json).values()) == {"unchanged"}
    plan = inv("image.plan", "all", "--refresh", "--json").by_name()
    assert {name for name, line in plan.items() if line["action"] == "build"} == ON_BASE
    assert all(package_changes(plan[name]) == [("ncurses-base", old, new)] for name in ON_BASE)
    assert package_changes(inv("image.why", "node-runtime", "--json").json) == [("ncurses-base", old, new)]
    assert "its parent will be rebuilt" in plan["node-runtime"]["why"]


def newest(inv: Goldsmith, name: str) -> Any:
    found = inv.ledger.latest_artifact(name, "linux/amd64")
    assert found
    return found.packages


def test_going_back_makes_the_older_artifact_the_newest_again(house: Goldsmith, tmp_path: Path) -> None:
    """What a definition says now is what is published next, even if that was built before something else was."""
    content = definition(tmp_path / "content", "wavering")
    file = content / "images/definitions/wavering/image.toml"
    inv = house.fork(tmp_path / "state").with_(content)
    first = inv("image.build", "wavering", "--json").by_name()["wavering"]["digest"]
    file.write_text(CHILD.replace("[base]", 'workdir = "/srv"\n[base]'))
    second = inv("image.build", "wavering", "--json").by_name()["wavering"]["digest"]
    file.write_text(CHILD)
    back = inv("image.build", "wavering", "--json").by_name()["wavering"]
    assert (back["action"], back["digest"]) == ("unchanged", first)
    assert first != second
    latest = inv.ledger.latest_artifact("wavering", "linux/amd64")
    assert latest
    assert latest.digest == first
    assert inv("image.why", "wavering", "--json").json["last_digest"] == first


def key() -> str:
    """A fresh private key, never committed."""
    data = base64.encodebytes(os.urandom(118)).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{data}-----END PRIVATE KEY-----\n"


def test_what_is_planted_is_refused_by_its_control(house: Goldsmith, tmp_path: Path) -> None:
    """Exit code 3 and the name of the control; nothing is kept of it, children fail with it, others are built."""
    root = tmp_path / "content"
    definition(root, "p-setuid", steps="RUN --network=none install -m 4755 /usr/bin/id /usr/local/bin/become")
    definition(root, "p-open", steps="RUN --network=none mkdir -m 0777 /srv/drop")
    file = 'files = [{ source = "server.pem", path = "/opt/server.pem" }]\n'
    folder = definition(root, "p-key", HEAD + file + CHILD.removeprefix(HEAD)) / "images/definitions/p-key"
    (folder / "server.pem").write_text(key())
    definition(root, "p-root", CHILD.replace("65532:65532", "0"))
    definition(root, "p-child", CHILD.replace("debian-base", "p-root"))
    definition(root, "p-sound")
    inv = house.fork(tmp_path / "state").with_(root)
    before = inv.blobs()

    answer = inv("image.build", "p-*", "--json")
    assert answer.code == 3, answer.err
    lines = answer.by_name()
    broken = {"p-setuid": "no-setuid", "p-open": "no-world-writable", "p-key": "no-secrets", "p-root": "nonroot-user"}
    for name, control in broken.items():
        assert lines[name]["action"] == "refused"
        assert [reason.partition(":")[0] for reason in lines[name]["reasons"]] == [control]
        assert f"{name} breaks {control}" in answer.err
        assert inv.ledger.artifacts(name) == ()
    assert "/usr/local/bin/become" in lines["p-setuid"]["reasons"][0]
    assert "PRIVATE" not in answer.out
    assert lines["p-child"]["action"] == "failed"
    assert lines["p-child"]["reasons"] == ["its parent p-root was refused"]
    assert lines["p-sound"]["action"] == "built"
    own = inv.store.read_json(lines["p-sound"]["digest"])
    sound = [lines["p-sound"]["digest"], own["config"]["digest"], own["layers"][-1]["digest"]]
    dockerfile = inv.ledger.artifacts("p-sound")[0].dockerfile
    assert inv.blobs() - before == {digest.removeprefix("sha256:") for digest in [*sound, dockerfile]}
    assert inv.leftovers() == []
    assert inv("image.verify", "p-root").code == 3, "it was refused, so there is nothing to verify"


def test_a_killed_build_leaves_nothing_and_the_next_completes(house: Goldsmith, tmp_path: Path) -> None:
    """kill -9 inside BuildKit and inside the trial; then the same content as if nothing had been."""
    slow = CHILD.replace('["true"]', '["sleep", "3"]')
    content = definition(tmp_path / "content", "slow", slow, "RUN --network=none sleep 2 && echo x > /srv/x")
    inv = house.fork(tmp_path / "state").with_(content)
    sound = inv("image.build", "slow", "--json").by_name()
    killed = Killed(inv)
    work = killed.work

    def trial() -> bool:
        return any(on_engine(inv.docker_host, (path.name for path in work.glob("*[!k]"))))

    killed.at("slow", lambda: processes("buildx", str(work)), "BuildKit")
    killed.at("slow", trial, "the trial")
    assert on_engine(inv.docker_host, killed.names)
    blobs = inv.blobs()

    after = inv("image.build", "slow", "--json")
    assert actions(after.json) == {"debian-base": "unchanged", "slow": "unchanged"}
    assert inv.leftovers() == []
    assert on_engine(inv.docker_host, killed.names) == []
    rebuilt = inv("image.build", "slow", "--no-cache", "--json").by_name()
    assert rebuilt["slow"]["digest"] == sound["slow"]["digest"]
    assert inv.blobs() == blobs
    assert inv.leftovers() == []
