"""Edge: Deployments, StatefulSets and DaemonSets as groups that their controllers roll to an image by digest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hardening.foundation.durations import shown
from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.kubernetes.cluster_client import CONFLICT, ClusterError
from pipelines.fleet.kubernetes.gitops import gitops_owner, instead
from pipelines.fleet.kubernetes.members import NamespaceReader
from pipelines.fleet.kubernetes.pod_facts import PodContainer, containers_of
from pipelines.fleet.kubernetes.workloads import (
    ALL,
    KINDS,
    ROLLED,
    Reach,
    RollingState,
    RollNote,
    RollState,
    Workload,
    asking,
    obstacle,
    pinned,
    reach_of,
    rolling,
    runs_image,
    stem,
)
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import ADDRESSES, Fleet, Limits
from pipelines.fleet.port import Group, GroupPin, Pacing, Progress, Watched

LOOKS = 5  # as often is looked again at what somebody else changes at the same time
BAKES_PER_DEADLINE = ALL - ROLLED  # each percent of the bake is progress


class WorkloadFleet:
    """The objects that keep the pods of `fleet`. A change names the resourceVersion that was read before it."""

    def __init__(self, fleet: Fleet, reader: NamespaceReader, now: Callable[[], datetime]) -> None:
        self.fleet = fleet
        self.reader = reader
        self._now = now
        self._complete = dict[tuple[str, str], datetime]()  # since when all is new, by group and image

    def groups(self) -> tuple[Group, ...]:
        """Every object whose pods carry the fleet's labels."""
        with self.reader.understood():
            return tuple(
                Group(name, work.name, work.desired, min(work.available, work.desired), obstacle(work), work.image)
                for name, work in sorted(self.reader.workloads().items())
            )

    def pace(self, group: Group, allowed: int) -> Pacing:
        """The pace of the object's own strategy. Raises RefusedError where that breaks one of the fleet's limits."""
        limits, work = self.fleet.limits, self._workload(group)
        reach = reach_of(work)
        if not group.cannot_roll and group.desired:
            _refuse_reach(work, reach, limits, max(1, min(limits.max_parallel, allowed)))
        if limits.bake_time > BAKES_PER_DEADLINE * limits.progress_deadline:
            why = f"bake_time {shown(limits.bake_time)} is longer than {BAKES_PER_DEADLINE} times progress_deadline"
            raise RefusedError(f"limits: {why}", hint="raise progress_deadline")
        desired = max(1, group.desired)
        return Pacing(
            min_healthy_percent=max(0, ALL * (desired - reach.missing) // desired),
            max_healthy_percent=ALL + ALL * reach.beside // desired,
            checkpoint_percents=(),
            checkpoint_delay=timedelta(),
            warmup=limits.min_healthy_time,
            bake=limits.bake_time,
            alarms=tuple(one for one in limits.alarms if not one.startswith(ADDRESSES)),
            auto_rollback=limits.auto_rollback,
        )

    def instead(self, group: Group, target: ReplacementImage, reasons: Sequence[str]) -> str:
        """The pull request for an object that GitOps keeps; empty for one that it does not."""
        work = self._workload(group)
        if not gitops_owner(work.shown) or not work.container:
            return ""
        said = tuple(dict.fromkeys(reasons))
        return instead(work.kind, work.name, self.reader.namespace, work.container, target.reference, said)

    def pin(self, group: Group) -> GroupPin:
        """The image that it names, and the one that its pods run, by digest."""
        work = self._workload(group)
        return pinned(work, self._pods(work))

    def begin(self, rollout: str, group: Group, target: ReplacementImage, pinned: GroupPin, pacing: Pacing) -> None:
        """Give the object the image, once; one that was held goes on.

        Raises RefusedError where it no longer runs what was pinned, or is somebody else's to change by now.
        """
        bake = int(max(pacing.bake, pacing.warmup).total_seconds())
        note = RollNote(stem(rollout), target.reference, str(pinned.version), RollState.NEW, bake)

        def ask(work: Workload) -> RollNote | None:
            known = work.note_of(rollout)
            if known and known.state is RollState.NEW and work.image == note.new:
                return None
            if why := obstacle(work):
                raise RefusedError(f"{work.called}: {why}", hint="nothing was changed: plan again")
            if work.image not in (pinned.template, pinned.version, note.new if known else ""):
                why = f"{work.called} runs {work.image} by now, and {pinned.template} was pinned"
                raise RefusedError(why, hint="somebody else has changed it: plan again")
            return note

        self._change(group, ask)

    def hold(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Nothing: its controller rolls all of it, so that no part of it could be left for later."""

    def watch(self, rollout: str, group: Group) -> Watched:
        """One look at how far its controller is, and how long all of it has been well."""
        with self.reader.understood():
            return self._watched(rollout, group)

    def _watched(self, rollout: str, group: Group) -> Watched:
        work = self._workload(group)
        note = work.note_of(rollout)
        if note is None and work.image == group.runs:
            return Watched(Progress.ROLLED_BACK, 0, "nothing was begun")
        if note is None or work.image != note.wanted:
            return Watched(Progress.FAILED, 0, f"somebody else has set it to {work.image}")
        seen = rolling(work, self._pods(work), note, self._now(), self.fleet.limits.healthy_deadline)
        if note.state is RollState.NEW and not seen.failed:
            return self._baked(group, note, seen)
        back = Progress.ROLLED_BACK if seen.done else Progress.FAILED if seen.failed else Progress.ROLLING_BACK
        progress = {RollState.HELD: Progress.CANCELLED, RollState.BACK: back}.get(note.state, Progress.FAILED)
        return Watched(progress, seen.percent, seen.failed or seen.text)

    def _baked(self, group: Group, note: RollNote, seen: RollingState) -> Watched:
        """How far the bake is. It starts over when a pod does not serve, and in a process that goes on with it."""
        key = group.id, note.wanted
        if not seen.done:
            self._complete.pop(key, None)
            return Watched(Progress.RUNNING, seen.percent, seen.text)
        since = self._complete.setdefault(key, self._now())
        lasted = (self._now() - since).total_seconds()
        if lasted >= note.bake_seconds:
            return Watched(Progress.DONE, ALL, seen.text, since)
        share = int((ALL - ROLLED) * lasted / note.bake_seconds)
        return Watched(Progress.RUNNING, ROLLED + share, f"{seen.text}; it bakes", since)

    def cancel(self, rollout: str, group: Group) -> None:
        """Hold it where it is: a Deployment is paused, the others update no further pod."""

        def ask(work: Workload) -> RollNote | None:
            known = work.note_of(rollout)
            if known is None or known.state is not RollState.NEW or work.image != known.new:
                return None
            return replace(known, state=RollState.HELD)

        self._change(group, ask)

    def way_back(self, rollout: str, group: Group, pinned: GroupPin) -> str:
        """Why it cannot go back to what was pinned; empty where it can."""
        return _way_back(self._workload(group), rollout, pinned)

    def roll_back(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Give it the pinned image again, by digest. Raises RefusedError where there is no way back."""

        def ask(work: Workload) -> RollNote | None:
            known = work.note_of(rollout)
            if known is None and work.image in (pinned.template, pinned.version):
                return None  # nothing was begun
            if known and known.state is RollState.BACK and work.image == known.old:
                return None
            if why := _way_back(work, rollout, pinned):
                raise RefusedError(why, hint="nothing was done; build and roll what shall run instead")
            new = known.new if known else work.image
            return RollNote(stem(rollout), new, str(pinned.version), RollState.BACK)

        self._change(group, ask)
        self._free(group, rollout)

    def _free(self, group: Group, rollout: str) -> None:
        """End the broken pods of a StatefulSet that goes back: its controller would wait for them for ever.

        https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
        """
        work = self._workload(group)
        note = work.note_of(rollout)
        if work.kind == "StatefulSet" and note and note.state is RollState.BACK:
            for one in self._pods(work):
                if runs_image(one, note.new) and not one.ready:
                    meta = one.pod["metadata"]
                    self.reader.client.delete(self.reader.pod_path(str(meta["name"])), str(meta["uid"]))

    def _change(self, group: Group, ask: Callable[[Workload], RollNote | None]) -> None:
        """Ask for what `ask` says of the object as it is now; again where it was changed in between."""
        for _ in range(LOOKS):
            work = self._workload(group)
            if (note := ask(work)) is None:
                return
            try:
                self.reader.client.patch(self.reader.path(work.kind, work.name), asking(work, note))
            except ClusterError as error:
                if error.status != CONFLICT:
                    raise
                continue
            self._complete.pop((group.id, note.wanted), None)
            return
        raise OutsideError(f"{group.name} changes all the time: {LOOKS} looks were out of date at once")

    def _workload(self, group: Group) -> Workload:
        kind = next((kind for kind in KINDS if group.id.rpartition("/")[0].endswith(f"/{kind.lower()}")), "")
        return self.reader.workload(kind, group.name)

    def _pods(self, work: Workload) -> list[PodContainer]:
        """The rolled container of each pod that the object keeps."""
        pods = self.reader.pods()
        keeper, group = self.reader.keepers(pods), self.reader.group_id(work.kind, work.name)
        ours = (one for pod in pods if keeper(pod) == group for one in containers_of(pod))
        return [one for one in ours if one.name == work.container]


def _way_back(work: Workload, rollout: str, pinned: GroupPin) -> str:
    known = work.note_of(rollout)
    ours = {pinned.template, pinned.version, *((known.new, known.old) if known else ())}
    if work.image not in ours:
        return f"{work.called} runs {work.image} by now, which somebody else has given it"
    return f"{work.called}: {why}" if (why := obstacle(work)) else ""


def _refuse_reach(work: Workload, reach: Reach, limits: Limits, at_once: int) -> None:
    """Raise RefusedError where the strategy of an object lets its controller do more than the limits allow."""
    missing, beside = limits.unavailable(work.desired), limits.surge(work.desired)
    where, lower = f"{work.called} ({work.desired} pods): its strategy", "in its strategy, lower"
    if reach.missing > missing:
        least = "maxUnavailable" if work.kind == "Deployment" else "maxUnavailable, of which it knows no 0"
        hint = f"{lower} {least}; or raise limits.max_unavailable: until the new pods are ready, the old ones are gone"
        raise RefusedError(f"{where} lets {reach.missing} be missing, and limits.max_unavailable {missing}", hint=hint)
    if reach.beside > beside:
        what = f"{where} lets {reach.beside} stand beside the old ones, and limits.max_surge {beside}"
        raise RefusedError(what, hint=f"{lower} maxSurge; or raise limits.max_surge")
    if reach.at_once > at_once:
        what = f"{where} replaces {reach.at_once} at once, and limits.max_parallel or a budget allows {at_once}"
        raise RefusedError(what, hint=f"{lower} maxSurge or maxUnavailable; or raise the limit")
