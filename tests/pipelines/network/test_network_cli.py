"""The commands of the network: exit codes, kinds, files of other machines, and whatever strangers say of theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import MalformedError, UsageError
from hardening.foundation.settings import Settings
from images.context import Context
from pipelines.cli.network import apply_network, check_network, render_network, show_differences
from pipelines.lint import content_problems, unreviewed_rules
from pipelines.network import engine_edge, machine_edge
from pipelines.network.comparing import Openness, compare_ruleset, compare_sockets
from pipelines.network.docker_networks import SeenEngine
from pipelines.network.nftables import read_ruleset
from pipelines.network.security_groups import read_group
from tests.pipelines.network.sample import HEAD, SHOP, network

CLOSED = {"nftables": [
    {"chain": {"family": "inet", "table": "filter", "name": side, "hook": side, "policy": "drop"}}
    for side in ("input", "output")
]}  # fmt: skip
MACHINES = SHOP.replace('containers = { app = "shop", part = "web" }', 'definitions = ["debian-server"]').replace(
    'containers = { app = "shop", part = "db" }', ""
)
QUIET = HEAD + '[roles.idle]\nwhat = "asks nobody, and is asked by nobody"\naddresses = ["10.1.0.0/24"]\n'


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Context]:
    """A content root with the shop's network."""
    (tmp_path / "network").mkdir()
    (tmp_path / "network/shop.toml").write_text(SHOP)
    with closing_at(tmp_path) as context:
        yield context


def closing_at(root: Path) -> Any:
    settings = Settings(state=root / "state", content=(root,))
    return closing_context(Context(settings, datetime(2026, 7, 2, tzinfo=UTC), lambda: "", lambda: ""))


class closing_context(closing[Any]):  # noqa: N801 - as contextlib calls it
    """The context of a block, whose ledger is closed after it."""

    def __exit__(self, *_: object) -> None:
        self.thing.ledger.close()


def said(context: Context, *arguments: str) -> tuple[int, set[str]]:
    """The exit code of a check, and the verdicts."""
    lines = check_network(*arguments, context=context)
    return show_differences(lines, as_json=True), {str(line.verdict) for line in lines}


def test_the_exit_code_says_whether_anything_differs_or_is_unknown(at: Context, tmp_path: Path) -> None:
    """Overdue alone is told and is no failure; whatever could not be read is never compliant."""
    (tmp_path / "network/shop.toml").write_text(QUIET)
    (tmp_path / "closed.json").write_text(json.dumps(CLOSED))
    (tmp_path / "quiet.txt").write_text("udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*\n")
    dport = {"payload": {"protocol": "udp", "field": "dport"}}
    dhcp = {"match": {"op": "==", "left": dport, "right": {"set": [67, 547]}}}
    rule = {"family": "inet", "table": "filter", "chain": "output", "expr": [dhcp, {"accept": None}]}
    (tmp_path / "closed.json").write_text(json.dumps({"nftables": [*CLOSED["nftables"], {"rule": rule}]}))
    files = str(tmp_path / "closed.json"), str(tmp_path / "quiet.txt")
    assert said(at, "all", "idle", *files) == (0, set())
    (tmp_path / "network/shop.toml").write_text(QUIET.replace("2027-05-31", "2026-05-31"))
    assert said(at, "all", "idle", *files) == (0, set()), "there is no rule that could be overdue"
    (tmp_path / "open.txt").write_text("tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n")
    assert said(at, "all", "idle", files[0], str(tmp_path / "open.txt")) == (3, {"too-closed"})
    (tmp_path / "broken.json").write_text("{")
    for broken in (str(tmp_path / "broken.json"), str(tmp_path / "absent.json"), str(tmp_path)):
        assert said(at, "all", "idle", broken, str(tmp_path / "open.txt")) == (4, {"too-closed", "unknown"})
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    assert said(at, "all", "idle", files[0], str(tmp_path / "binary.txt")) == (4, {"unknown"})


def test_a_container_whose_image_is_gone_has_no_role_and_the_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its labels may be those of its image, which nothing here shows any more."""
    shown = {"Id": "c1", "Names": ["/old"], "Labels": {"app": "shop", "part": "db"}, "ImageID": "sha256:gone"}
    api = SimpleNamespace(networks=list, containers=lambda **_: [shown], images=lambda **_: [])
    monkeypatch.setattr(engine_edge, "engine", lambda _host: SimpleNamespace(api=api))
    assert engine_edge.read_engine("unix:///e", network(SHOP)).containers == ()
    warning = " ".join(capsys.readouterr().err.split())
    assert "the role db: old is left out: its image is unknown here" in warning
    assert "its image sets" not in warning


def test_where_nothing_is_looked_at_nothing_is_known(at: Context, tmp_path: Path) -> None:
    """A network of addresses, or of pods alone: nothing of it is read from here, and so nothing of it is right."""
    pods = QUIET.replace('addresses = ["10.1.0.0/24"]', 'pods = { namespace = "shop", labels = { app = "idle" } }')
    for text in (QUIET, pods):
        (tmp_path / "network/shop.toml").write_text(text)
        assert said(at, "all") == (4, {"unknown"})


def test_what_is_not_read_of_a_machine_or_a_cluster_is_unknown_by_name(at: Context, tmp_path: Path) -> None:
    """One file of two, and the pods of a network that has other members too: exit code 4."""
    (tmp_path / "closed.json").write_text(json.dumps(CLOSED))
    (tmp_path / "quiet.txt").write_text("")
    for files, missing in ((("closed.json", ""), "--sockets"), (("", "quiet.txt"), "--ruleset")):
        given = [name and str(tmp_path / name) for name in files]
        lines = check_network("all", "db", *given, context=at)
        assert [line.what for line in lines if line.verdict is Openness.UNKNOWN] == [f"not read: give {missing} too"]
        assert show_differences(lines, as_json=True) == 4
    (tmp_path / "network/shop.toml").write_text(MACHINES)
    lines = check_network("all", context=at)
    assert [(line.where, line.verdict) for line in lines if "cluster" in line.what] == [
        ("kubernetes", Openness.UNKNOWN)
    ]
    assert show_differences(lines, as_json=True) == 4


def test_policies_that_are_not_applied_are_named(at: Context, capsys: pytest.CaptureFixture[str]) -> None:
    """`all` changes what it can; where that is nothing, it is not said that all is right."""
    (file,) = at.settings.roots[1].glob("network/*.toml")
    file.write_text(MACHINES)
    (line,) = apply_network("all", apply=False, context=at)[0]
    assert line.kind == "nftables"
    assert "note: kubernetes: NetworkPolicies are rendered, and not applied from here" in capsys.readouterr().err
    for text in (QUIET, QUIET.replace('addresses = ["10.1.0.0/24"]', 'pods = { namespace = "x", labels = {} }')):
        file.write_text(text)
        with pytest.raises(UsageError, match="no role has members that are changed from here"):
            apply_network("all", apply=False, context=at)


def test_hosts_that_fleets_name_are_unknown(at: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the engine of the settings is looked at; members of a role may run on others."""
    seen = SeenEngine({}, frozenset(), (), {})
    monkeypatch.setattr("pipelines.cli.network.fleet_host", lambda _: "unix:///run/docker.sock")
    monkeypatch.setattr("pipelines.network.engine_edge.read_engine", lambda _host, _network: seen)
    assert said(at, "docker")[0] == 0
    (tmp_path / "pipelines/fleets").mkdir(parents=True)
    (tmp_path / "pipelines/fleets/shop.toml").write_text(
        'title = "t"\nowner = "o"\nkind = "docker"\nselector = { app = "shop" }\n'
        'replacement = { definition = "nginx" }\nhealth = { kind = "docker" }\n'
        '[docker]\nhosts = ["unix:///run/docker.sock", "ssh://ops@web-2"]\n'
    )
    lines = check_network("docker", context=at)
    assert [line.where for line in lines if line.verdict is Openness.UNKNOWN] == ["web-2"]


def test_a_file_without_end_is_refused(at: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the limit, which the answer names."""
    (tmp_path / "large.txt").write_text("x" * 100)
    monkeypatch.setattr(machine_edge, "SOCKETS", machine_edge.Limit("network.sockets", 50))
    lines = check_network("all", "web", "", str(tmp_path / "large.txt"), context=at)
    assert any("the limit network.sockets" in line.what for line in lines if line.verdict is Openness.UNKNOWN)


def test_this_machine_is_read_by_its_own_programs(at: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them it is unknown."""
    monkeypatch.setattr(machine_edge, "NFT", ["no-such-nft"])
    monkeypatch.setattr(machine_edge, "SS", ["no-such-ss"])
    unknown = [line.what for line in check_network("all", "web", context=at) if line.verdict is Openness.UNKNOWN]
    assert ["no-such-nft" in what or "no-such-ss" in what for what in unknown] == [True, True]


def test_what_is_asked_wrongly_is_an_error_of_usage(at: Context) -> None:
    """With what there is."""
    with pytest.raises(UsageError, match="unknown kind: iptables"):
        check_network("iptables", context=at)
    with pytest.raises(UsageError, match="--ruleset and --sockets are of one machine"):
        check_network("all", "", "x.json", context=at)
    with pytest.raises(UsageError, match="rendered, and not applied from here"):
        apply_network("kubernetes", apply=False, context=at)
    with pytest.raises(UsageError, match="the policies of a cluster are not read"):
        check_network("kubernetes", context=at)


def test_rendered_files_are_written_once(at: Context, tmp_path: Path) -> None:
    """And anew with `force`."""
    lines = render_network("kubernetes", output=str(tmp_path / "out"), force=False, context=at)
    assert [Path(line.path).read_text() == line.text for line in lines] == [True]
    with pytest.raises(UsageError, match="exists already"):
        render_network("kubernetes", output=str(tmp_path / "out"), force=False, context=at)
    assert render_network("kubernetes", output=str(tmp_path / "out"), force=True, context=at) == lines


def test_lint_tells_what_is_wrong_and_what_is_overdue(at: Context, tmp_path: Path) -> None:
    """A mistake of one file is told with file and key; a review that is due is a note."""
    assert content_problems(at.settings.roots, date(2026, 7, 2)) == ()
    (note,) = unreviewed_rules(at.settings.roots, date(2026, 7, 2))
    assert note.endswith("rules[2]: 10.9.0.0/24 → db had to be reviewed by 2026-06-30, 2 days ago (shop)")
    (tmp_path / "network/shop.toml").write_text(SHOP.replace('to = "db"', 'to = "dbb"'))
    (problem,) = content_problems(at.settings.roots, date(2026, 7, 2))
    assert str(problem).startswith(f"{tmp_path}/network/shop.toml: rules[1].to: unknown role: dbb")
    assert unreviewed_rules(at.settings.roots, date(2026, 7, 2)) == []
    (tmp_path / "network/more.toml").write_text(HEAD)
    told = [str(one) for one in content_problems(at.settings.roots, date(2026, 7, 2))]
    assert any("more.toml" in one for one in told)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(("chain", "rule", "expr", "match", "left", "op", "right", "set", "hook", "x")),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(anything, st.lists(anything, max_size=3))
def test_whatever_nft_says_is_understood_or_unknown(said: Any, expressions: list[Any]) -> None:
    """Never an error of Python's own."""
    rule = {"family": "inet", "table": "filter", "chain": "input", "expr": expressions}
    for document in (said, {"nftables": said}, {"nftables": [*CLOSED["nftables"], {"rule": rule}]}):
        for side in ("input", "output"):
            read_ruleset(document, "web", side)
        assert [*compare_ruleset(network(SHOP), "web", document, "here")]


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_ss_says_is_understood_or_unknown(one: str, other: str) -> None:
    """Never an error of Python's own."""
    assert [*compare_sockets(network(SHOP), "web", f"{one}\n{other}", "here")]


@given(anything)
def test_whatever_a_group_shows_is_understood_or_malformed(shown: Any) -> None:
    """Never an error of Python's own."""
    with suppress(MalformedError):
        read_group({"GroupId": "sg-1", "IpPermissions": shown})
