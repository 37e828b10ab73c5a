"""How a container or an instance runs is read from what engine and region show; what they send is not trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
from requests.exceptions import ReadTimeout

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import CHUNK, CONTAINER_ANSWER
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy, RunningRules
from hardening.runtime import (
    NAMES,
    ContainerFacts,
    InstanceFacts,
    Mount,
    Observed,
    SecurityGroup,
    open_to_all,
    way_of,
)
from images.documents import to_json
from pipelines.fleet.docker.container_facts import (
    MOST_CHANGES,
    MOST_PROCESSES,
    ContainerProcess,
    EngineSettings,
    Look,
    bound_volumes,
    facts_of,
    health_check,
)
from pipelines.fleet.docker.observing import _observed, changes_of, foreign_processes
from pipelines.fleet.ec2.instance_facts import MOST_RULES
from pipelines.fleet.ec2.instance_facts import facts_of as facts_of_instance
from pipelines.fleet.ec2.instance_spec import InstanceDescription
from pipelines.fleet.members import Provenance
from pipelines.fleet.runtime_snapshots import facts_in
from pipelines.fleet.violations import MOST_EVIDENCE, FleetJudge, checked, verdict_of
from tests.pipelines.fleet.test_planted_fleet import policy
from tests.support.fleets import NOW, fleet, judge_member, member, release

INFO = {"SecurityOptions": ["name=seccomp,profile=builtin"], "CgroupVersion": "2"}
CONTAINER: dict[str, Any] = {
    "Id": "a" * 64, "Image": "sha256:1", "Created": "2026-03-01T12:00:00.1Z", "State": {"Pid": 100, "Running": True},
    "Config": {"User": "7", "Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"]}},
    "HostConfig": {"ReadonlyRootfs": False, "Tmpfs": {"/scratch": ""}, "LogConfig": {"Type": "none"}},
    "NetworkSettings": {"Networks": {"web": {}}},
    "Mounts": [{"Type": "volume", "Name": "data", "Destination": "/var/data", "RW": True}],
}  # fmt: skip


def seen(
    changes: list[Any] | None = None, foreign: list[ContainerProcess] | None = None, **more: Any
) -> ContainerFacts:
    """How a container runs that differs so from its image."""
    return facts_of(Look(CONTAINER, {"User": "7"}, changes, foreign, {}), EngineSettings(INFO | more))


class Engine:
    """What an engine answers about one container, by address: each answer in turn, and the last one for good."""

    def __init__(self, container: dict[str, Any] = CONTAINER, **answers: list[Any]) -> None:
        self.answers = {"json": [container], "changes": [None], **answers}
        self.asked = list[str]()

    def _url(self, form: str, *words: str) -> str:
        return form.format(*words)

    def _get(self, address: str, **asked: Any) -> Any:
        assert asked["stream"]
        name = address.split("/")[2] if address.startswith("/exec/") else address.rpartition("/")[2]
        return Answer(json.dumps(self._next(name)).encode())

    def _next(self, name: str) -> Any:
        self.asked.append(name)
        answers = self.answers[name]
        found = answers.pop(0) if answers[1:] else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    def _raise_for_status(self, _: Any) -> None: ...

    def inspect_container(self, _: str) -> Any:
        return self._next("json")


class Answer:
    """An answer of so many bytes, once; or `again` and again, far over the limit, which a broken reader survives."""

    def __init__(self, data: bytes, *, again: bool = False) -> None:
        self.data, self.again, self.read = data, again, 0

    def iter_content(self, _size: int) -> Iterator[bytes]:
        while not self.read or (self.again and self.read < 4 * CONTAINER_ANSWER.most):
            self.read += len(self.data)
            yield self.data

    def close(self) -> None: ...


def top(*rows: str) -> dict[str, Any]:
    """What `docker top` shows: pid, parent, user, and the rest of the line, as Moby joins it."""
    return {"Processes": [[*row.split()[:3], " ".join(row.split()[3:])] for row in rows]}


def executed(pid: int, *words: str) -> list[Any]:
    """What an engine says of an exec."""
    return [{"Pid": pid, "ProcessConfig": {"entrypoint": words[0], "arguments": list(words[1:])}}]


def test_files_that_the_engine_or_a_mount_explains_are_not_changed_ones() -> None:
    """Nor directories of what is told; a file beside a mount is."""
    kinds = {"/etc": 0, "/etc/hosts": 0, "/etc/passwd": 0, "/scratch": 1, "/var": 0, "/var/data": 1, "/var/data/x": 1,
             "/var/database": 1, "/opt": 1, "/opt/evil": 1, "/bin/sh": 2, "/dev/null": 0,
             "/sbin/docker-init": 1}  # fmt: skip
    changes = [{"Path": path, "Kind": kind} for path, kind in kinds.items()]
    assert seen(changes).changed == ("removed /bin/sh", "changed /etc/passwd", "added /opt/evil", "added /var/database")


def test_only_so_many_files_are_kept() -> None:
    """The first by name; a container may have written millions."""
    changes = [{"Path": f"/x/{number:05}" + "y" * 999, "Kind": 1} for number in range(MOST_CHANGES + 9)]
    found = seen(changes).changed
    assert (len(found), found[0][:14]) == (MOST_CHANGES, "added /x/00000")
    assert max(map(len, found)) < 400
    assert seen(changes).unread == (("changed_files", f"{MOST_CHANGES + 9} files differ, {MOST_CHANGES} are kept"),)
    assert seen(changes[:MOST_CHANGES]).unread == ()


@pytest.mark.parametrize("tree", ["/tmp/", "/opt/", "/a/"])
def test_many_files_do_not_hide_a_planted_one(tree: str) -> None:
    """By name or by design before it; what is not kept is at least unread."""
    changes = [{"Path": f"{tree}{number:04}", "Kind": 1} for number in range(MOST_CHANGES + 9)]
    facts = seen([*changes, {"Path": "/usr/bin/x", "Kind": 1}])
    seen_now = Observed("container", replace(facts, writable_root=False))
    one = FleetJudge("web", policy(), (), NOW).judge(member(), Provenance(release=release()), seen_now)
    found = {reason.rule: reason.remedy.evidence for reason in one.standing if reason.remedy}
    if tree == "/tmp/":
        assert (found["changed_files"], facts.unread) == (("added /usr/bin/x",), ())
    else:
        assert "added /usr/bin/x" in found["changed_files"] or "changed_files" in dict(facts.unread)
        assert "unread" in found


def test_of_what_is_written_by_design_a_rest_that_is_not_kept_is_not_allowed_in_part() -> None:
    """A policy that allows less than a whole directory is told that there is more."""
    changes = [{"Path": f"/tmp/{number:04}", "Kind": 1} for number in range(MOST_CHANGES)]
    facts = seen([*changes, {"Path": "/var/log/x", "Kind": 1}])
    logs = "changed /var/log/… (and more)"
    for allowed, told in ((("/tmp/*", "/var/log/*"), ()), (("/tmp/*", "/var/log/y"), (logs,))):
        rules = RunningRules.model_validate({"changed_files": {"enforcement": "enforce", "allowed": allowed}})
        by = FleetJudge("web", policy().model_copy(update={"running": rules}), (), NOW)
        one = by.judge(member(), Provenance(release=release()), Observed("container", facts))
        assert next((reason.remedy.evidence for reason in one.standing if reason.remedy), ()) == told


def test_many_processes_do_not_hide_one() -> None:
    """What is not kept is unread."""
    facts = seen(foreign=[ContainerProcess(str(200 + n), "1", "app", f"a{n:03}") for n in range(MOST_PROCESSES + 1)])
    assert len(facts.processes) == MOST_PROCESSES
    assert facts.unread == (("foreign_processes", f"{MOST_PROCESSES + 1} were brought in, {MOST_PROCESSES} are kept"),)


@pytest.mark.parametrize("ask", [changes_of, partial(foreign_processes, checks=())])
def test_an_answer_without_end_is_refused(ask: Callable[[Any, Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is read to its end: whoever writes in a container, or names its processes, decides how long it is."""
    endless, engine = Answer(b" " * CHUNK, again=True), Engine()
    monkeypatch.setattr(engine, "_get", lambda *_, **__: endless)
    with pytest.raises(OutsideError, match=r"container\.answer"):
        ask(engine, CONTAINER)
    assert endless.read < 2 * CONTAINER_ANSWER.most
    assert changes_of(engine, {**CONTAINER, "HostConfig": {"ReadonlyRootfs": True}}) == []


CHECKED = {**CONTAINER, "Config": {"Healthcheck": {"Test": ["CMD-SHELL", 'curl -f   "$URL" || exit 1']}}}
CHECKS = {health_check(CHECKED), ("pg_isready", "-q")}


def test_a_process_from_outside_is_told_without_its_arguments() -> None:
    """Not the first one, its children, or a check, of the image or of the fleet's file, by the words that the engine
    was given; what has such words among others is none.
    """
    first = ("100 1 app nginx: master", "101 100 app nginx: worker")
    rows = (
        *first, "200 1 app curl -f http://x", "201 200 app sh", "210 1 app pg_isready -q",
        "300 1 root mysql --password=secret", "301 300 root sh", "310 1 root bash",
        '320 1 root x -c curl -f "$URL" || exit 1', "330 1 app pg_isready -q",
    )  # fmt: skip
    engine = Engine(
        {**CHECKED, "ExecIDs": ["a", "b", "c", "d"]},
        top=[top(*rows)],
        a=executed(200, "/bin/sh", "-c", 'curl -f   "$URL" || exit 1'),
        b=executed(210, "pg_isready", "-q"),
        c=executed(320, "x", "-c", 'curl -f   "$URL" || exit 1'),
        d=[docker.errors.NotFound("it is over")],
    )
    found = foreign_processes(engine, CHECKED, CHECKS)
    assert [one.pid for one in found] == ["300", "310", "320", "330"]
    assert seen(foreign=found).processes == ("bash as root", "mysql … as root", "pg_isready … as app", "x … as root")
    alone = Engine(CHECKED, top=[top(*first)])
    assert foreign_processes(alone, CHECKED, CHECKS) == []
    assert alone.asked == ["top"], "one look is enough where there is nobody"


def test_what_changes_while_it_is_looked_at_is_not_from_outside() -> None:
    """A check that ends between two looks, one that begins, and a first process that was started again."""
    before = top("100 1 app nginx", "200 1 app /bin/sh -c true", "300 1 root bash")
    after = top("400 1 app nginx", "500 1 app /bin/sh -c true", "300 1 root bash")
    restarted = {**CHECKED, "State": {"Pid": 400, "Running": True}}
    assert [one.pid for one in foreign_processes(Engine(restarted, top=[before, after]), CHECKED, CHECKS)] == ["300"]
    assert foreign_processes(Engine(restarted, top=[top("400 1 app nginx")]), CHECKED, CHECKS) == []
    ended = {**CHECKED, "State": {"Pid": 0, "Running": False}}
    assert foreign_processes(Engine(ended, top=[before]), CHECKED, CHECKS) == []


@pytest.mark.parametrize(
    ("container", "answers", "said"),
    [
        (docker.errors.APIError("no", explanation="the engine is tired"), {}, "the engine is tired"),
        (ReadTimeout("too slow"), {}, "too slow"),
        ({"Id": "x"}, {}, "not understood"),
        *[
            (CONTAINER, {"top": [{"Processes": wrong}]}, "foreign_processes")
            for wrong in (7, None, [["1", "0", "app"]])
        ],
        (CONTAINER, {"top": [top()], "changes": [[1]]}, "not understood"),
    ],
)
def test_what_is_wrong_with_one_container_is_unread_and_no_failure_of_the_others(
    container: Any, answers: dict[str, Any], said: str
) -> None:
    """Whatever the engine answers about it."""
    engine: Any = Engine(container, **{"top": [top()], **answers})
    images: Any = SimpleNamespace(of=lambda _: {})
    found = _observed(engine, member(), images, fleet(), EngineSettings(INFO))
    assert said in (found.unread or repr(found.now))


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({}, None),
        ({"SecurityOptions": []}, "seccomp"),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, "seccomp"),
        ({"Warnings": ["WARNING: API is accessible on http://0.0.0.0:2375 without encryption."]}, "0.0.0.0:2375"),
        ({"Warnings": ["WARNING: No swap limit support"]}, None),
        ({"RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8", "10.0.0.0/8"]}}, "10.0.0.0/8"),
        ({"RegistryConfig": {"IndexConfigs": {"r.example": {"Secure": False}}}}, "r.example"),
        ({"RegistryConfig": {"IndexConfigs": {"localhost:5000": {"Secure": False}}}}, None),
    ],
)
def test_what_of_the_engines_settings_is_weak(info: dict[str, Any], told: str | None) -> None:
    """Each beside its benign twin."""
    found = seen(**info).daemon
    assert (told in found[0]) if told else found == ()


def test_what_a_region_shows_of_an_instance_is_read() -> None:
    """Lines of groups by protocol, port and origin; IPv6 is public; who owns it; no more lines than a screen bears."""
    rules = [
        {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8010, "IpRanges": [{"CidrIp": "10.0.0.0/8"}],
         "PrefixListIds": [{"PrefixListId": "pl-1"}], "UserIdGroupPairs": [{"GroupId": "sg-2"}]},
        {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
        {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
    ]  # fmt: skip
    shown = {
        "InstanceId": "i-1", "InstanceType": "t3.micro", "SecurityGroups": [{"GroupId": "sg-1"}],
        "NetworkInterfaces": [{"Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}]}],
        "IamInstanceProfile": {"Arn": "arn:aws:iam::1:instance-profile/path/web"},
        "Tags": [{"Key": "Owner", "Value": "shop"}, {"Key": "secret", "Value": "x"}],
    }  # fmt: skip
    group = {"GroupName": "web", "IpPermissions": rules}
    found = facts_of_instance(InstanceDescription(shown), "ami-1", {"sg-1": group}, None, {})
    assert found.groups[0].lets_in == (
        "all from 0.0.0.0/0", "icmp from ::/0", "tcp 8000-8010 from 10.0.0.0/8", "tcp 8000-8010 from pl-1",
        "tcp 8000-8010 from sg-2",
    )  # fmt: skip
    assert (found.public_address, found.profile, found.owner_tags) == ("2001:db8::1", "web", (("Owner", "shop"),))
    assert found.tokens == "optional"  # what is not said is the service's weaker default
    many = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": f"10.0.{n // 256}.{n % 256}/32"} for n in range(9999)]}]
    group = {"GroupName": "web", "IpPermissions": many}
    found = facts_of_instance(InstanceDescription(shown), "ami-1", {"sg-1": group}, None, {})
    assert len(found.groups[0].lets_in) == MOST_RULES
    assert found.unread == (("open_group", f"sg-1 has 9999 rules, {MOST_RULES} are kept"),)
    hidden = facts_of_instance(InstanceDescription(shown), "ami-1", {"sg-2": group}, None, {})
    assert hidden.unread == (("open_group", "the region does not show sg-1"),)


# -- judged ------------------------------------------------------------------------------------------------------------


def since(*broken: bool, now: bool = True) -> Any:
    """Since when it is privileged, where earlier snapshots, a day apart, were or were not."""
    facts = [ContainerFacts(privileged=one, memory_bytes=1, cpus=1, pids=1) for one in (*broken, now)]
    history = tuple((NOW - timedelta(days=len(broken) - number), one) for number, one in enumerate(facts[:-1]))
    by = FleetJudge("web", policy(), (), NOW)
    one = by.judge(member(since=NOW - timedelta(days=30)), Provenance(release=release()),
                   Observed("container", facts[-1], history))  # fmt: skip
    return next((NOW - reason.since).days for reason in one.reasons if reason.rule == "privileged" and reason.since)


def test_a_violation_began_with_the_snapshot_that_first_showed_it() -> None:
    """With the member itself where it was always so; now where no look has seen it yet."""
    assert (since(False, True, True), since(True, False, True), since(True, True), since(False), since()) == (
        2, 1, 30, 0, 30
    )  # fmt: skip


def drift(*looks: ContainerFacts | InstanceFacts, rule: str) -> int | None:
    """Since how many days a rule is broken, by looks a day apart, the last one now; None: it is not."""
    first, *_ = looks
    history = tuple((NOW - timedelta(days=len(looks) - 1 - number), one) for number, one in enumerate(looks[:-1]))
    by = FleetJudge("web", policy(), (), NOW)
    one = by.judge(member(since=NOW - timedelta(days=30)), Provenance(release=release()),
                   Observed(first.kind, looks[-1], history))  # fmt: skip
    return next(((NOW - reason.since).days for reason in one.reasons if reason.rule == rule and reason.since), None)


def test_a_look_that_failed_does_not_begin_a_violation_anew() -> None:
    """It says neither that the rule held, nor that it was broken; a look that saw that it held does."""
    held, bad = ContainerFacts(), ContainerFacts(changed=("added /etc/x",))
    silent = ContainerFacts(unread=(("changed_files", "no answer"),))
    cut = replace(bad, unread=(("changed_files", "600 files differ, 500 are kept"),))
    assert drift(held, bad, silent, bad, rule="changed_files") == 2
    assert drift(held, bad, cut, cut, rule="changed_files") == 2
    assert drift(held, silent, bad, rule="changed_files") == 0
    assert drift(held, bad, held, bad, rule="changed_files") == 0
    assert drift(silent, bad, rule="changed_files") == 30


def test_groups_are_compared_with_the_first_look_that_read_them() -> None:
    """Whatever could not be read then, or in between."""
    closed = InstanceFacts(groups=(SecurityGroup("sg-1", "web", ("tcp 22 from 10.0.0.0/8",)),))
    opened = InstanceFacts(groups=(SecurityGroup("sg-1", "web", ("tcp 22 from 0.0.0.0/0",)),))
    silent = InstanceFacts(unread=(("open_group", "denied"),))
    assert drift(silent, closed, closed, rule="changed_settings") is None
    assert drift(silent, closed, opened, opened, rule="changed_settings") == 1
    assert drift(closed, opened, silent, opened, rule="changed_settings") == 2
    assert drift(silent, replace(closed, type="t3.small"), rule="changed_settings") == 0


@pytest.mark.parametrize("source", ["/", "/run", "/var/run/", "/run/docker.sock"])
def test_what_holds_the_socket_is_a_directory_of_the_host_too(source: str) -> None:
    """The socket alone is only the socket."""
    facts = ContainerFacts(user="7", image_user="7", memory_bytes=1, cpus=1, pids=1,
                           mounts=(Mount("bind", source, "/x", writable=True),))  # fmt: skip
    one = FleetJudge("web", policy(), (), NOW).judge(
        member(), Provenance(release=release()), Observed("container", facts)
    )
    alone = source.endswith(".sock")
    assert {reason.rule for reason in one.standing} == ({"docker_socket"} | (set() if alone else {"host_mount"}))


def test_what_is_kept_of_a_member_names_so_many_things() -> None:
    """A container may have changed hundreds of files; the answer itself has them all."""
    facts = ContainerFacts(user="7", image_user="7", memory_bytes=1, cpus=1, pids=1,
                           changed=tuple(f"added /etc/{number}" for number in range(90)))  # fmt: skip
    one = FleetJudge("web", policy(), (), NOW).judge(
        member(), Provenance(release=release()), Observed("container", facts)
    )
    (whole,), (kept,) = one.reasons, checked(one).reasons
    assert whole.remedy
    assert kept.remedy
    assert (len(whole.remedy.evidence), len(kept.remedy.evidence)) == (90, MOST_EVIDENCE + 1)
    assert kept.remedy.evidence[-1] == "and 70 more"
    assert checked(one).handle == member().handle


def test_what_replacing_does_not_mend_is_no_reason_to_replace() -> None:
    """It is out of policy all the same; what drifted is a reason."""
    good, by = Provenance(release=release()), FleetJudge("web", policy(), (), NOW)
    plain = ContainerFacts(user="7", image_user="7", memory_bytes=1, cpus=1, pids=1)
    configured = by.judge(member(), good, Observed("container", replace(plain, privileged=True)))
    drifted = by.judge(member(), good, Observed("container", replace(plain, changed=("added /etc/x",))))
    assert (configured.violations, configured.rules, verdict_of(configured).rules) == ((), frozenset(), ("privileged",))
    assert (drifted.rules, verdict_of(drifted).rules) == ({"changed_files"}, ("changed_files",))


def test_what_could_not_be_read_is_unread_as_strictly_as_it_could_be_broken() -> None:
    """A waiver for the rule itself covers that it was not read."""
    good, by = Provenance(release=release()), FleetJudge("web", policy(), (), NOW)
    silent = by.judge(member(), good, Observed("container", None, unread="no answer"))
    assert (verdict_of(silent).state, verdict_of(silent).good) == ("unread", False)
    assert {line.partition(":")[0] for line in silent.standing[0].remedy.evidence} <= NAMES  # type: ignore[union-attr]
    rules = RunningRules.model_validate({"changed_files": {"enforcement": "warn"}})
    asked: Policy = policy().model_copy(update={"running": rules})
    unread = Observed("container", ContainerFacts(unread=(("changed_files", "no answer"),)))
    (reason,) = FleetJudge("web", asked, (), NOW).judge(member(), good, unread).standing
    assert (reason.rule, reason.enforcement) == ("unread", Enforcement.WARN)
    waiver = Waiver(id="w", rules=("changed-files",), subjects=("web/*",), reason="r", owner="a", approver="b",
                    created=NOW.date(), expires=NOW.date() + timedelta(days=9))  # fmt: skip
    assert FleetJudge("web", asked, (waiver,), NOW).judge(member(), good, unread).standing == ()
    reasons = FleetJudge("web", asked, (waiver,), NOW).judge(member(), good, unread).reasons
    assert "unread" not in {one.rule for one in reasons}


def test_what_is_out_of_policy_is_not_unread_for_one_rule_that_is() -> None:
    """Nor does that hide that it is ill."""
    expired = Provenance(release=release(expires_at=NOW))
    unread = Observed("container", ContainerFacts(unread=(("changed_files", "no answer"),)))
    verdict = verdict_of(FleetJudge("web", policy(), (), NOW).judge(member(healthy=False), expired, unread))
    assert (verdict.state, verdict.ill) == ("out of policy", True)
    assert {"expired", "unread"} <= set(verdict.rules)


def test_published_ports_and_secrets_are_told_by_name() -> None:
    """Ports as they are bound; of variables the names that look like a secret's, and no value. A path is no secret."""
    ports = {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}], "9000/tcp": None,
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }  # fmt: skip
    env = ["PATH=/bin", "DB_PASSWORD=hunter2", "api_key=x", "TLS_PRIVATE_KEY_FILE=/run/key", "TOKENS", "KEYBOARD=de"]
    networks = CONTAINER["NetworkSettings"] | {"Ports": ports}
    shown = CONTAINER | {"Config": CONTAINER["Config"] | {"Env": env}, "NetworkSettings": networks}
    found = facts_of(Look(shown, {}, None, None, {}), EngineSettings(INFO))
    assert found.published == ("0.0.0.0:8080 to 80/tcp", "127.0.0.1:53 to 53/udp", ":::8080 to 80/tcp")
    assert found.secrets == ("DB_PASSWORD", "TOKENS", "api_key")
    assert "hunter2" not in json.dumps(to_json(found))
    bare = replace(found, published=(), secrets=())
    assert way_of(Observed("container", found)) == way_of(Observed("container", bare)), "no rule is about them"


def test_who_shares_a_network_has_the_networks_and_ports_of_it() -> None:
    """Also the host's, where the other one has that."""
    ports = {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    shown = CONTAINER | {"NetworkSettings": {"Networks": {}}}
    lender = CONTAINER | {"NetworkSettings": {"Networks": {"web": {}, "back": {}}, "Ports": ports}}
    found = facts_of(Look(shown, {}, None, None, {}, lender), EngineSettings(INFO))
    assert (found.networks, found.borrowed, found.host_namespaces) == ((), ("back", "web"), ())
    assert found.published == ("0.0.0.0:8080 to 80/tcp",)
    of_host = CONTAINER | {"HostConfig": {"NetworkMode": "host"}, "NetworkSettings": {"Networks": {"host": {}}}}
    assert facts_of(Look(shown, {}, None, None, {}, of_host), EngineSettings(INFO)).host_namespaces == ("network",)
    engine: Any = Engine(shown | {"HostConfig": {"NetworkMode": "container:1", "PidMode": "container:2"}}, top=[top()])
    engine.answers["json"] += [lender | {"Name": "/lender"}, lender | {"Name": "/traced"}]
    seen_now = _observed(engine, member(), SimpleNamespace(of=lambda _: {}), fleet(), EngineSettings(INFO)).now  # type: ignore[arg-type]
    assert isinstance(seen_now, ContainerFacts)
    assert (seen_now.borrowed, seen_now.beside) == (("back", "web"), ("traced",))


def test_devices_of_the_host_and_volumes_that_are_directories_of_it_are_told() -> None:
    """A volume by the directory that its options bind; a disk that it mounts, or memory, is none."""
    host = CONTAINER["HostConfig"] | {
        "Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
        "DeviceCgroupRules": ["b 8:* rwm"],
    }  # fmt: skip
    options = {
        "data": {"type": "none", "o": "bind,ro", "device": "/etc"}, "disk": {"type": "ext4", "device": "/dev/sdb1"},
        "memory": {"type": "tmpfs", "o": "bind", "device": "tmpfs"}, "plain": None,
    }  # fmt: skip
    bound = bound_volumes({"Name": name, "Options": said} for name, said in options.items())
    assert bound == {"data": "/etc"}
    found = facts_of(Look(CONTAINER | {"HostConfig": host}, {}, None, None, {}), EngineSettings(INFO, bound=bound))
    assert found.devices == ("/dev/sda r", "b 8:* rwm")
    assert found.mounts[1] == Mount("bind", "/etc", "/var/data", writable=True)
    untold = facts_of(Look(CONTAINER, {}, None, None, {}), EngineSettings(INFO, bound=None))
    assert [rule for rule, _ in untold.unread] == ["host_mount"], "what the engine does not list may be one"


@pytest.mark.parametrize(
    ("origin", "everybody"),
    [
        ("0.0.0.0/0", True), ("::/0", True), ("128.0.0.0/1", True), ("0.0.0.0/1", True), ("2000::/3", True),
        ("10.0.0.0/8", False), ("54.0.0.0/8", False), ("fc00::/7", False), ("2600:1f18::/32", False), ("sg-1", False),
        ("pl-1", False),
    ],
)  # fmt: skip
def test_a_part_of_the_internet_is_everybody_as_all_of_it_is(origin: str, everybody: bool) -> None:
    """Two halves would let in all."""
    assert open_to_all(f"tcp 22 from {origin}") is everybody


def test_what_another_version_kept_is_left_out() -> None:
    """A snapshot that is not understood is none, and no failure."""
    kept = json.loads('{"kind": "container", "privileged": "perhaps"}')
    assert facts_in(kept) is None
    assert facts_in({"kind": "pod"}) is None
    assert facts_in({"kind": "container", "privileged": True, "added_later": 1}) == ContainerFacts(privileged=True)


def test_judging_by_the_plain_call_is_judging_in_bulk() -> None:
    """One member with a policy of its own gets the same answer."""
    from pipelines.fleet.violations import facts

    one, origin = member(since=NOW), Provenance(release=release(), latest=release(9))
    bulk = FleetJudge("web", policy(), (), NOW).judge(one, origin).reasons
    assert judge_member(policy(), "web/web-1", facts(one, origin), (), NOW) == bulk
