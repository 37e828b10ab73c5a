"""What people may write in a fleet's file, and what they are told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError
from pipelines.fleet.catalog import load_fleet, load_fleets
from pipelines.fleet.model import Approval, Method

WEB = """
title = "The web servers"
owner = "platform team"
kind = "docker"
selector = { app = "web" }
replacement = { definition = "nginx-unprivileged" }
"""


def written(root: Path, text: str, name: str = "web") -> Path:
    folder = root / "pipelines" / "fleets"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)
    return root


def test_a_fleet_with_nothing_but_the_necessary_is_safe(tmp_path: Path) -> None:
    """Every limit defaults to the careful side."""
    fleet = load_fleet([written(tmp_path, WEB)], "web")
    assert fleet.approval is Approval.REQUIRED
    assert fleet.limits.method is Method.SURGE
    assert fleet.limits.unavailable(10) == 0
    assert fleet.replacement.channel == "stable"
    (budget,) = fleet.limits.budgets
    assert (budget.nodes, budget.reasons, budget.windows, budget.schedule) == ("10%", (), (), None)
    assert fleet.limits.model_dump(mode="json", exclude={"budgets", "do_not_disrupt"}) == {
        "method": "surge", "max_unavailable": 0, "max_surge": 1, "max_parallel": 1, "zones": "one_by_one",
        "windows": [], "freezes": [], "jitter": "50%", "drain": "30s", "before_drain": [], "after_drain": [],
        "settle": "2s", "canary": 1, "min_healthy_time": "30s", "healthy_deadline": "5m", "progress_deadline": "30m",
        "bake_time": "5m", "bake_between_waves": "0s", "auto_promote": True, "auto_rollback": True, "alarms": [],
        "min_soak": "0s", "min_remaining": "7d", "max_violating_fraction": {"expired": 1.0, "unknown": 0.5},
        "termination_grace": "1h", "rehearsal": True, "unwritten_mounts": [], "shared_mounts": [],
    }  # fmt: skip


@pytest.mark.parametrize(("most", "desired", "expected"), [("25%", 3, 0), ("25%", 4, 1), ("50%", 5, 2), (2, 5, 2)])
def test_percentages_are_rounded_down(tmp_path: Path, most: str | int, desired: int, expected: int) -> None:
    """A small fleet never loses everyone."""
    text = f"{WEB}\n[limits]\nmax_unavailable = {most if isinstance(most, int) else repr(most)}\n"
    assert load_fleet([written(tmp_path, text)], "web").limits.unavailable(desired) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[limits]\nmax_paralel = 3", "did you mean max_parallel"),
        ("[limits]\nmax_unavailble = 1", "did you mean max_unavailable"),
        ('[limits]\nmax_unavailable = "half"', "25%"),
        ('[limits]\nbake_time = "5"', "such as 30s"),
        ('[limits]\nmin_healthy_time = "10m"', "no step can succeed"),
        ('[health]\nkind = "http"', "need a port"),
        ('[health]\nkind = "docker"\nport = 80', "only they do"),
        ('[health]\nkind = "exec"', "needs a command"),
        ('[health]\nkind = "tcp"\nport = 80\npath = "/x"', "only http has a path"),
        ('[health]\nkind = "ec2"', "does not fit a fleet of kind docker"),
        ('[ec2]\nregions = ["eu-central-1"]', 'belongs to a fleet of kind "ec2"'),
        (
            '[docker]\nhosts = ["unix:///run/docker.sock", "ssh://web-2"]\n[health]\nkind = "tcp"\nport = 80',
            "leads to no container of ssh://web-2",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    """A limit that is not honoured does not exist, and a contradiction is told, with the file."""
    with pytest.raises(ContentError) as error:
        load_fleet([written(tmp_path, f"{WEB}\n{line}\n")], "web")
    assert said in str(error.value)
    assert "web.toml" in str(error.value)


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ('[limits]\nmax_surge = "120%"', "limits.max_surge", "from 0% to 100%"),
        ('[limits]\nmax_surge = "00%"', "limits.max_surge", "from 0% to 100%"),
        ('[limits]\nmin_soak = "99999999d"', "limits.min_soak", "at most 36525 days"),
        (
            '[[limits.freezes]]\nfirst_day = 2027-01-01\nlast_day = 9999-12-31\nreason = "ever"',
            "limits.freezes[0]",
            "no clock reaches so far",
        ),
        ("[limits]\nmax_unavailable = true", "limits.max_unavailable", "a whole number"),
        ("[limits]\nmax_surge = 0", "limits", "in_place"),
        ("[limits]\nmax_parallel = 0", "limits.max_parallel", "at least 1"),
        ('[limits]\nprogress_deadline = "5m"', "limits", "longer than healthy_deadline"),
        ('[limits]\njitter = "10"', "limits.jitter", "such as 10%"),
        ("[[limits.budgets]]", "limits.budgets[0].nodes", "required"),
        ('[[limits.budgets]]\nnodes = 1\nschedule = "0 25 * * *"', "limits.budgets[0].schedule", "hour is a number"),
        ('[[limits.budgets]]\nnodes = 1\nschedule = "@daily"', "limits.budgets[0]", "give both or neither"),
        ('[[limits.budgets]]\nnodes = 1\nreasons = ["drift"]', "limits.budgets[0].reasons[0]", "'expired'"),
        ('[[limits.budgets]]\nnodes = 1\nzone = "Europe/Berlin"', "limits.budgets[0]", "each window has its own"),
        ('[[limits.windows]]\nstart = "25:00"', "limits.windows[0].start", "a time of day such as"),
        ('[[limits.windows]]\nzone = "Europe/Berlln"', "limits.windows[0].zone", "Europe/Berlin"),
        ('[[limits.windows]]\ndays = ["monday"]', "limits.windows[0].days[0]", "'mon'"),
        (
            '[[limits.freezes]]\nfirst_day = 2027-01-02\nlast_day = 2027-01-01\nreason = "x"',
            "limits.freezes[0]",
            "before first_day",
        ),
        ('[docker]\nhosts = ["unix:///run/docker.sock", "web-2"]', "docker.hosts[1]", "ssh://ops@web-2"),
        ('[docker]\nhosts = ["ssh://web-2", "tcp://web-2:2376"]', "docker", "hosts names web-2 twice"),
        ('[limits]\nalarms = ["high-latency"]', "limits.alarms", "only ec2, ecs and eks have alarms by name"),
    ],
)
def test_what_is_wrong_with_a_limit_is_told_with_its_key(tmp_path: Path, line: str, key: str, said: str) -> None:
    """The key path down to the item of a list, and what would be right."""
    with pytest.raises(ContentError) as error:
        load_fleet([written(tmp_path, f"{WEB}\n{line}\n")], "web")
    assert key in str(error.value)
    assert said in str(error.value)


def test_commands_around_draining_belong_to_containers(tmp_path: Path) -> None:
    """Nobody would run them in an instance."""
    text = WEB.replace('"docker"', '"ec2"') + '\n[limits]\nafter_drain = ["/usr/bin/join"]\n'
    with pytest.raises(ContentError, match="a fleet of kind docker has them"):
        load_fleet([written(tmp_path, text)], "web")


def test_a_window_takes_times_with_and_without_quotes(tmp_path: Path) -> None:
    """TOML has times of its own."""
    text = f'{WEB}\n[[limits.windows]]\nstart = 22:00:00\nend = "05:00"\n'
    window = load_fleet([written(tmp_path, text)], "web").limits.windows[0]
    assert (window.start.hour, window.end.hour) == (22, 5)


@pytest.mark.parametrize(
    "replacement", ["{}", '{ definition = "a", tag = "r/a:1" }', '{ tag = "r/a:1", channel = "stable" }']
)
def test_a_replacement_is_one_thing(tmp_path: Path, replacement: str) -> None:
    """A definition with its channel, or a tag."""
    text = WEB.replace('{ definition = "nginx-unprivileged" }', replacement)
    with pytest.raises(ContentError, match="replacement"):
        load_fleet([written(tmp_path, text)], "web")


def test_a_selector_that_selects_everything_is_refused(tmp_path: Path) -> None:
    """An empty selector would take over the whole host."""
    with pytest.raises(ContentError, match="selector"):
        load_fleet([written(tmp_path, WEB.replace('{ app = "web" }', "{}"))], "web")


def test_fleets_of_all_roots_are_found_and_one_name_in_two_roots_is_not_accepted(tmp_path: Path) -> None:
    """A company's own root adds fleets; it never silently replaces one."""
    first, second = written(tmp_path / "a", WEB), written(tmp_path / "b", WEB, "shop")
    assert set(load_fleets([first, second])) == {"web", "shop"}
    with pytest.raises(ContentError, match="already defined"):
        load_fleets([first, written(tmp_path / "c", WEB)])


def test_a_name_that_is_not_there_gets_the_nearest(tmp_path: Path) -> None:
    """A typing mistake is answered with the name that was meant."""
    with pytest.raises(ContentError, match="did you mean web"):
        load_fleet([written(tmp_path, WEB)], "wbe")


MACHINES = """
title = "The application servers"
owner = "platform team"
kind = "ec2"
selector = { app = "shop" }
replacement = { definition = "debian-server" }
"""


def test_an_ec2_fleet_is_asked_as_the_cloud_sees_it_unless_told_otherwise(tmp_path: Path) -> None:
    """Status checks and target groups are the health of a machine; http asks for more."""
    assert load_fleet([written(tmp_path, MACHINES)], "web").health.kind == "ec2"
    more = f"{MACHINES}\n[health]\nkind = 'http'\nport = 80\n"
    assert load_fleet([written(tmp_path, more)], "web").health.kind == "http"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{MACHINES}\n[health]\nkind = 'exec'\ncommand = ['true']", "does not fit a fleet of kind ec2"),
        (MACHINES.replace('{ definition = "debian-server" }', '{ tag = "r/app:1" }'), "a definition, not a tag"),
        (f"{MACHINES}\n[ec2]\nregions = ['Frankfurt']", "a region such as eu-central-1"),
        (f"{MACHINES}\n[ec2]\naccounts = ['12']", "twelve digits"),
    ],
)
def test_what_does_not_fit_machines_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Containers' ways to be healthy and to be replaced are not machines'."""
    with pytest.raises(ContentError, match=said):
        load_fleet([written(tmp_path, text)], "web")


def test_where_a_docker_fleet_runs_belongs_to_no_other_kind(tmp_path: Path) -> None:
    """And containers of a socket may be asked by their addresses."""
    text = WEB.replace('"docker"', '"ec2"') + '[docker]\nhosts = ["ssh://web-2"]\n'
    with pytest.raises(ContentError, match='belongs to a fleet of kind "docker"'):
        load_fleet([written(tmp_path, text)], "web")
    text = WEB + '[docker]\nhosts = ["unix:///run/docker.sock"]\n[health]\nkind = "tcp"\nport = 80\n'
    assert load_fleet([written(tmp_path, text)], "web").docker.labels == ("local",)
