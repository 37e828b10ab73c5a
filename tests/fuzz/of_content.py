"""What people write: every sort of content, the settings, and the short texts with a grammar of their own."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import TemplateError
from pydantic import BaseModel

from hardening.foundation import addresses, text
from hardening.foundation.content import parse, read_toml
from hardening.foundation.durations import duration
from hardening.foundation.engine_address import engine_address
from hardening.foundation.settings import ROOT, load_settings
from hardening.foundation.templating import Sandbox, render
from hardening.model import Cases, Control, Profile, Waiver
from hardening.policy import Policy
from images.model import Definition
from images.plan.upstream import LockFile
from images.registry import references
from pipelines.fleet.calendar import cron
from pipelines.fleet.drafting import toml
from pipelines.fleet.model import Fleet
from tests.fuzz.harness import Form, Target, folder
from tests.pipelines.test_serve import NOW
from tests.support.ec2 import FLEET_FILE

SORTS: dict[str, tuple[type[BaseModel], dict[str, str], str]] = {
    "control": (Control, {"id": "x"}, "hardening/controls/*/control.toml"),
    "cases": (Cases, {}, "hardening/controls/*/cases.toml"),
    "profile": (Profile, {"name": "x"}, "hardening/profiles/*.toml"),
    "policy": (Policy, {"name": "x"}, "hardening/policies/*.toml"),
    "definition": (Definition, {"name": "x"}, "images/definitions/*/image.toml"),
    "upstream-lock": (LockFile, {}, "images/definitions/images.lock.toml"),
}
"""The model of each sort, what its path says, and where it stands."""
WAIVER = """rules = ["no-setuid"]
subjects = ["web"]
reason = "x"
owner = "ann"
approver = "bob"
created = 2026-11-01
expires = 2026-12-01
"""
MORE_FLEETS = (
    """title = "x"
owner = "x"
kind = "docker"
selector = { app = "x" }
approval = "required"
[docker]
hosts = ["tcp://b.example:2376", "tcp://c.example:2376"]
[replacement]
definition = "nginx"
[limits]
max_unavailable = "10%"
windows = [{ days = ["mon"], start = "22:00", end = "02:00", zone = "Europe/Berlin" }]
freezes = [{ first_day = 2026-12-20, last_day = 2027-01-02, reason = "x" }]
budgets = [{ reasons = ["expired"], nodes = 2 }]
[health]
kind = "exec"
command = ["/healthz"]
""",
    FLEET_FILE,
)
SETTINGS = """state = "x"
scanners = ["grype"]
[registry]
address = "r.example/golden"
[aws]
account = "123456789012"
region = "eu-central-1"
timeout = "2s"
[serve]
nightly = "0 2 * * *"
zone = "Europe/Berlin"
[docker]
host = "unix:///var/run/docker.sock"
"""


def _texts(pattern: str) -> list[str]:
    """The longest of what ships, which has the most keys."""
    found = sorted((one.read_text() for one in ROOT.glob(pattern)), key=len, reverse=True)
    return [one for one in found if len(one) < 8_000][:4]


def _sort(name: str, model: type[BaseModel], named: dict[str, str], texts: Callable[[], list[str]]) -> Iterator[Target]:
    """One by what stands in its tables, and one by its text."""

    def tables(said: Any) -> object:
        return parse(said if isinstance(said, dict) else {"x": said}, model, "x.toml", **named)

    yield Target(f"content-{name}", tables, lambda: [tomllib.loads(one) for one in texts()])
    yield Target(f"toml-{name}", lambda said: tables(_toml(said)), texts, Form.TEXT)


def _toml(said: str) -> dict[str, Any]:
    return read_toml(_written(said))


def _written(said: str) -> Path:
    file = folder() / "content.toml"
    file.write_bytes(said.encode("utf-8", "surrogatepass"))
    read_toml.__globals__["_parsed"].cache_clear()  # it is known by its time and size
    return file


def _template(said: str) -> object:
    return render(said, {"values": ["a", "b"], "name": "x"}, Sandbox())


def _short(said: str) -> None:
    """Texts with a grammar: each is one, or a ValueError, which models turn into an error with its key."""
    for ask in (
        lambda: duration(said),
        lambda: cron(said).last(ZoneInfo("UTC"), NOW, NOW - NOW),
        lambda: engine_address(said),
        lambda: references.place_of(said),
        lambda: addresses.is_safe(said),
        lambda: addresses.has_login(said),
        lambda: addresses.without_login(said),
        lambda: addresses.is_loopback(said),
        lambda: toml(text.one_line(said)),
    ):
        with suppress(ValueError):
            ask()
    shown = text.visible(said)
    assert "\x1b" not in shown
    assert "\x00" not in shown
    assert "\n" not in text.one_line(said)


TARGETS: Sequence[Target] = (
    *(one for name, (model, named, pattern) in SORTS.items()
      for one in _sort(name, model, named, lambda pattern=pattern: _texts(pattern))),
    *_sort("fleet", Fleet, {"name": "x"}, lambda: [*MORE_FLEETS]),
    *_sort("waiver", Waiver, {"id": "x"}, lambda: [WAIVER]),
    Target("toml-settings", lambda said: load_settings(_written(said)), lambda: [SETTINGS], Form.TEXT),
    Target("template", _template, lambda: [
        "{% for v in values %}{{ v | upper }}\n{% endfor %}{% if name == 'x' %}{{ name ~ '-' }}{% endif %}"], Form.TEXT,
           (TemplateError,)),
    Target("short-texts", _short, lambda: [
        "1h30m", "0 2 * * 1-5", "ssh://a@b.example:22", "r.example:5000/x/y:tag@sha256:1", "https://u:p@h.example/"],
        Form.TEXT),
)  # fmt: skip
