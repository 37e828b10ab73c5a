"""The demo as a recipe: publish, run, let time pass, find, replace under load, report."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hardening.foundation.console import out, print_json, print_rule, say
from hardening.foundation.errors import RefusedError
from hardening.foundation.locks import only_one
from hardening.foundation.settings import NONE, REHEARSAL, Docker, Feeds, Judging, Registry, Settings, load_settings
from hardening.foundation.timing import collected, step, told
from images.build.workspace import sweep
from images.context import Context
from images.documents import to_json
from images.release.flow import release_all
from pipelines.cli.image import promote_one
from pipelines.cli.report import write_report
from pipelines.cli.rollout import check_fleet, roll_fleet, show_members, show_roll
from pipelines.contract import DemoOutput
from pipelines.demo import web_service
from pipelines.demo.web_service import Stream, steady
from pipelines.host import embedded_registry
from pipelines.host.provision import docker_host
from pipelines.wiring import fleet_host, image_context

CONTENT = Path(__file__).with_name("content")
PAGE = Path("images/definitions/demo-web/files/index.html")
AGO = timedelta(days=31)
AFTERWARDS_SECONDS = 2
IMAGES = ("debian-base", "debian-static", "nginx-unprivileged", "demo-web")


def demo(*, keep: bool = False, as_json: bool = False) -> int:
    """Run the loop and say what it showed; exit code 3 if a single request was lost.

    Without `keep` only the report stays, whatever happens on the way. With `as_json` standard output holds the result
    and nothing else. Raises RefusedError when another demo runs on this machine.
    """
    base = load_settings()
    with (
        only_one(base.state_dir / "locks" / "demo.lock", "demo"),
        redirect_stdout(sys.stderr) if as_json else nullcontext(),
    ):
        shown = _loop(base, keep=keep)
    print_json(to_json(shown)) if as_json else _close(shown)
    return 3 if shown.failed else 0


def _loop(base: Settings, *, keep: bool) -> DemoOutput:
    """The loop as a recipe."""
    began = time.monotonic()
    with collected() as steps, _stage(base, keep=keep) as settings:
        today = image_context(settings, policy="demo")
        with _part(1, "first release", "31 days ago: build, harden, verify, scan, judge, publish"):
            _publish(replace(today, now=today.now - AGO))
            url = _start(today)
        with _part(2, "find", f"Today: a service runs on it at {url}, and time has passed"):
            show_members(check_fleet("demo", today))
        with _part(3, "second release", "The page has changed: a new release; what has not changed is re-dated"):
            (settings.state_dir / "content" / PAGE).write_text("<!doctype html><title>demo</title>release two\n")
            today = image_context(settings, policy="demo")
            _publish(today)
        with _part(4, "replace", "The member is replaced while requests keep coming"):
            stream = _roll(today, url)
            path = _keep_report(image_context(settings, policy="demo"), base)  # as of now, after the rollout
    return DemoOutput(
        seconds=round(time.monotonic() - began, 1), requests=stream.sent, failed=len(stream.failures),
        slowest_seconds=round(stream.slowest_seconds, 3), report=str(path), kept_at=url if keep else "", steps=steps,
    )  # fmt: skip


@contextmanager
def _part(number: int, name: str, title: str) -> Iterator[None]:
    """A part of the demo, which is a step."""
    print_rule(f"{number}. {title}")
    with step(name), collected(name):  # what is a step within it is told where it ends
        yield


@contextmanager
def _stage(base: Settings, *, keep: bool) -> Iterator[Settings]:
    """The demo's own settings and content; nothing of an earlier demo is there, and at the end nothing of this one."""
    settings = own_settings(base)
    _remove(settings)
    shutil.copytree(CONTENT, settings.state_dir / "content")
    (base.state_dir / "apt").mkdir(exist_ok=True)
    (settings.state_dir / "apt").symlink_to(base.state_dir / "apt")
    (settings.state_dir / REHEARSAL).touch()
    try:
        yield settings
    finally:
        if not keep:
            _remove(settings)


def own_settings(base: Settings) -> Settings:
    """The demo's own ledger, registry and content, beside what the checkout has."""
    state = base.state_dir / "demo"
    engines = Docker(host=docker_host(base, for_builds=False), build_host=docker_host(base, for_builds=True))
    feeds = Feeds(debsecan=NONE, tracker=NONE, trivy=NONE, kev=NONE, epss=NONE)  # today's would be of the future then
    own = {
        "state": state, "database": "", "registry": Registry(), "docker": engines, "feeds": feeds,
        "content": (*base.content, state / "content"),
        "judging": Judging(policies=("demo",), floor="", roots=(*base.judging.roots, state / "content")),
    }  # fmt: skip
    return base.model_copy(update=own)


def _remove(settings: Settings) -> None:
    """Remove a demo whole, one that was kept or killed too: service, registry, what it kept, its images on engines."""
    registry = embedded_registry.known_address(settings)
    sweep(settings, lambda: settings.docker.build_host)
    for host in {settings.docker.host, settings.docker.build_host}:
        web_service.clean(host)
        if registry:
            web_service.forget_images(host, registry)
    embedded_registry.stop(settings)
    shutil.rmtree(settings.state_dir, ignore_errors=True)


def _publish(context: Context) -> None:
    """Bring the demo's images to `stable`; raises what stops the first that fails."""
    for outcome in release_all(context, IMAGES):
        if outcome.error:
            raise outcome.error
        say(f"{outcome.name}: {outcome.built.action}, {outcome.action}, expires {outcome.expires_at:%Y-%m-%d}")
        promote_one(context, outcome.name)


def _start(context: Context) -> str:
    """Start the service on what `stable` names, the proxy on the golden nginx; the address that answers."""
    proxy, web = (f"{context.registry_address()}/{name}:stable" for name in ("nginx-unprivileged", "demo-web"))
    return web_service.start(fleet_host(context), context.settings, proxy_image=proxy, web_image=web)


def _roll(context: Context, url: str) -> Stream:
    """Replace the member under load. Raises RefusedError if the new release never answered."""
    with steady(url) as stream:
        roll = roll_fleet("demo", apply=True, context=context)
        show_roll(roll, as_json=False)
        if roll.failure:
            raise RefusedError(f"the rollout failed: {roll.failure}")
        time.sleep(AFTERWARDS_SECONDS)
    answers = ", ".join(f"{page.rpartition('>')[2]} {number} times" for page, number in stream.answers.items())
    say(f"{stream.sent} requests, {len(stream.failures)} failed, slowest {stream.slowest_seconds:.2f} s: {answers}")
    for failure in stream.failures[:5]:
        say(f"lost: {failure}")
    if not any("two" in text for text in stream.answers):
        raise RefusedError("the new release never answered", hint="this is a defect: please report it")
    return stream


def _keep_report(context: Context, base: Settings) -> Path:
    """The report, moved to where it outlives the demo."""
    made = write_report(context)
    kept = base.state_dir / "reports" / "demo.html"
    kept.parent.mkdir(parents=True, exist_ok=True)
    return made.replace(kept)


def _close(shown: DemoOutput) -> None:
    """What was shown, and what to type next."""
    lost = f"{shown.failed} LOST" if shown.failed else "none lost"
    lines = [
        f"Done in {shown.seconds:.0f} s: found, replaced, {shown.requests} requests, {lost}.",
        f"It took: {told(shown.steps)}.",
        f"The report: {shown.report}",
        f"The service still runs at {shown.kept_at}; the next ./goldsmith demo removes it."
        if shown.kept_at
        else "Nothing of it still runs.",
        "",
        "Next:",
        "  ./goldsmith image.plan all            what would be built here, and why",
        "  ./goldsmith image.build debian-base   build one, and check it by every control",
        "  ./goldsmith control.list              what hardens an image, and what it costs",
        "  ./goldsmith doctor                    what this machine lacks for real work",
    ]
    out().print("\n".join(lines), soft_wrap=True)
