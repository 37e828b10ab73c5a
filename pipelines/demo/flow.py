"""The demo as a recipe: publish, run, let time pass, find, replace under load, report."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hardening.foundation.console import out, say
from hardening.foundation.errors import RefusedError
from hardening.foundation.settings import Docker, Registry, Settings, load_settings
from images import channels
from images.context import Context
from images.release import release_all
from pipelines import local
from pipelines.demo import service
from pipelines.demo.stream import Stream, steady
from pipelines.host import docker_host
from pipelines.report import write_report
from pipelines.rolling import check_fleet, fleet_host, roll_fleet, show_members, show_roll
from pipelines.wiring import image_context

CONTENT = Path(__file__).with_name("content")
PAGE = Path("images/definitions/demo-web/files/index.html")
AGO = timedelta(days=31)
AFTERWARDS_SECONDS = 2
IMAGES = ("debian-base", "debian-static", "nginx-unprivileged", "demo-web")


def demo(*, keep: bool = False) -> None:
    """Run the loop; raises RefusedError if a request was lost. Without `keep` only the report stays."""
    began = time.monotonic()
    base = load_settings()
    settings = own_settings(base)
    today = image_context(settings, policy="demo")
    with service.cleaned(settings.docker.host, keep=keep):
        _title(1, "31 days ago: build, harden, verify, scan, judge, publish")
        _publish(replace(today, now=today.now - AGO))
        url = _start(today)
        _title(2, f"Today: a service runs on it at {url}, and time has passed")
        show_members(check_fleet("demo", today), as_json=False)
        _title(3, "The page has changed: a new release; what has not changed is re-dated")
        (settings.state_dir / "content" / PAGE).write_text("<!doctype html><title>demo</title>release two\n")
        today = image_context(settings, policy="demo")
        _publish(today)
        _title(4, "The member is replaced while requests keep coming")
        stream = _roll(today, url)
        path = _keep_report(today, base)
    if not keep:
        _remove(today)
    _close(path, stream, time.monotonic() - began, kept=url if keep else "")


def own_settings(base: Settings) -> Settings:
    """The demo's own ledger, registry and content, beside what the checkout has; packages are shared with it."""
    state = base.state_dir / "demo"
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(CONTENT, state / "content")
    (base.state_dir / "apt").mkdir(exist_ok=True)
    (state / "apt").symlink_to(base.state_dir / "apt")
    engines = Docker(host=docker_host(base, for_builds=False), build_host=docker_host(base, for_builds=True))
    own = {
        "state": state, "database": "", "registry": Registry(), "docker": engines,
        "content": (*base.content, state / "content"),
    }  # fmt: skip
    return base.model_copy(update=own)


def _publish(context: Context) -> None:
    """Bring the demo's images to `stable`; raises what stops the first that fails."""
    for outcome in release_all(context, IMAGES):
        if outcome.error:
            raise outcome.error
        say(f"{outcome.name}: build {outcome.built.action}, {outcome.action}, expires {outcome.expires_at:%Y-%m-%d}")
        channels.promote(context.publisher, outcome.name)


def _start(context: Context) -> str:
    """Start the service on what `stable` names, the proxy on the golden nginx; the address that answers."""
    registry = context.registry_address()
    return service.start(
        fleet_host(context),
        proxy_image=f"{registry}/nginx-unprivileged:stable",
        web_image=f"{registry}/demo-web:stable",
    )


def _roll(context: Context, url: str) -> Stream:
    """Replace the member under load. Raises RefusedError if a single request failed."""
    with steady(url) as stream:
        show_roll(roll_fleet("demo", apply=True, context=context), as_json=False)
        time.sleep(AFTERWARDS_SECONDS)
    answers = ", ".join(f"{_words(text)} {number} times" for text, number in stream.answers.items())
    say(f"{stream.sent} requests, {len(stream.failures)} failed, slowest {stream.slowest_seconds:.2f} s: {answers}")
    if stream.failures:
        raise RefusedError(f"{len(stream.failures)} requests were lost", evidence="\n".join(stream.failures[:5]))
    if not any("two" in text for text in stream.answers):
        raise RefusedError("the new release never answered", hint="this is a defect: please report it")
    return stream


def _words(page: str) -> str:
    return page.rpartition(">")[2]


def _keep_report(context: Context, base: Settings) -> Path:
    """The report, moved to where it outlives the demo."""
    made = write_report(context)
    kept = base.state_dir / "reports" / "demo.html"
    kept.parent.mkdir(parents=True, exist_ok=True)
    return made.replace(kept)


def _remove(context: Context) -> None:
    """Stop the demo's registry and remove all that it kept, on the engines too."""
    registry = context.registry_address()
    for host in {context.settings.docker.host, context.settings.docker.build_host}:
        service.forget_images(host, registry)
    local.stop(context.settings)
    shutil.rmtree(context.settings.state_dir)


def _title(number: int, text: str) -> None:
    out().rule(f"[bold]{number}. {text}", align="left")


def _close(path: Path, stream: Stream, seconds: float, *, kept: str) -> None:
    """What was shown, and what to type next."""
    lines = [
        f"Done in {seconds:.0f} s: found, replaced, {stream.sent} requests, none lost.",
        f"The report: {path}",
        f"The service still runs at {kept}; ./goldsmith demo removes it." if kept else "Nothing of it still runs.",
        "",
        "Next:",
        "  ./goldsmith image.plan all            what would be built here, and why",
        "  ./goldsmith image.publish all --policy demo",
        "  ./goldsmith control.list              what hardens an image, and what it costs",
        "  ./goldsmith doctor                    what this machine lacks for real work",
    ]
    out().print("\n".join(lines), markup=False, soft_wrap=True)
