"""The port through which the flow of a night acts on the world. Pure."""

from __future__ import annotations

from typing import Protocol

from pipelines.nightly.model import FeedNews, ImageAnswer, ImageJob, NightOrder, NightPart, NightPlan, NightRecord


class NightStages(Protocol):
    """What a night does, each a step: it may be done again after a crash, and finds by the input's or the content's
    digest, by the release and by the ledger what it has done.

    A GoldsmithError that a stage raises is what came of that step. An image's own is in its answer, since only there
    the reasons of a gate survive.
    """

    def suites(self, order: NightOrder) -> tuple[str, ...]:
        """The distributions that the images take packages from, each suite once."""

    def index(self, order: NightOrder, suite: str) -> NightPart:
        """Ask the mirror for its package index."""

    def feeds(self, order: NightOrder, suite: str) -> NightPart:
        """Ask the feeds for newer data."""

    def feed_changes(self, order: NightOrder) -> NightPart:
        """Tell what newer data changes for the images that are known."""

    def urgent(self, order: NightOrder) -> FeedNews:
        """The images in which something exploited or critical can be fixed."""

    def untried(self, order: NightOrder, found: FeedNews) -> tuple[str, ...]:
        """Of the urgent images those that no run tried in vain by the same fixes and the index as it is now."""

    def in_vain(self, record: NightRecord, found: FeedNews) -> bool:
        """Remember that an urgent run did nothing for its images; whether it is to be told, as what fails is once."""

    def upstreams(self, order: NightOrder) -> tuple[str, ...]:
        """The upstream images whose tags the night asks for."""

    def lock(self, order: NightOrder, reference: str) -> NightPart:
        """Ask what an upstream tag names; move its pin to what is old enough, where the settings let it."""

    def plan(self, order: NightOrder, urgent: tuple[str, ...]) -> NightPlan:
        """Which images have work. Of `urgent` ones, where any are named, only they and what stands on them."""

    def build(self, job: ImageJob) -> ImageAnswer:
        """Build and verify an image, if its inputs changed."""

    def judge(self, job: ImageJob, built: ImageAnswer) -> ImageAnswer:
        """Scan it and ask the gate: `refused` with the reasons where that says no."""

    def publish(self, job: ImageJob, judged: ImageAnswer) -> ImageAnswer:
        """Publish it to `candidate`, or give its release new dates."""

    def promote(self, job: ImageJob, published: ImageAnswer) -> ImageAnswer:
        """Move `stable` where that is the night's to do; and say of every image how long its stable release lasts."""

    def channels(self, order: NightOrder) -> NightPart:  # noqa: ARG002
        """Sign again where every channel points, since what is signed expires; a line only where that fails."""
        return NightPart()

    def prune(self, order: NightOrder) -> NightPart:
        """What is over: removed where the settings say so, else named."""

    def fleets(self, order: NightOrder, images: tuple[str, ...]) -> tuple[str, ...]:
        """The fleets to look at: all, or those that become one of `images`."""

    def fleet_needs(self, order: NightOrder, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """What a worker must have to bring a fleet into policy, by its file; empty: this process does it."""
        return ()

    def fleet(self, order: NightOrder, name: str) -> NightPart:
        """Check a fleet, and start or resume its rollout, which is a flow of its own, where its file lets us."""

    def waivers(self, order: NightOrder) -> NightPart:
        """The waivers that end soon."""

    def report(self, record: NightRecord) -> NightPart:
        """Write the report and the line of the audit; where the report lies is the part's `detail`."""

    def notify(self, record: NightRecord) -> NightPart:
        """Tell whom the settings name."""

    def digest(self, order: NightOrder) -> NightPart:  # noqa: ARG002
        """Tell the channels of the settings what is new to them; nothing where there are none."""
        return NightPart()
