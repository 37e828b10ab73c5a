"""Edge: Deployments, StatefulSets and DaemonSets as groups that their controllers roll to an image by digest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.delegated import Bakes, RollingState, StrategyWords, pace_of, stem, understood
from pipelines.fleet.kubernetes.cluster_client import CONFLICT, ClusterError
from pipelines.fleet.kubernetes.gitops import gitops_owner, instead
from pipelines.fleet.kubernetes.members import NamespaceReader
from pipelines.fleet.kubernetes.pod_facts import PodContainer, containers_of
from pipelines.fleet.kubernetes.workloads import (
    KINDS,
    RollNote,
    RollState,
    Workload,
    asking,
    in_the_way,
    obstacle,
    pinned,
    reach_of,
    rolling,
)
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import Group, GroupPin, Pacing, Progress, Watched

LOOKS = 5  # as often is looked again at what somebody else changes at the same time


class WorkloadFleet:
    """The objects that own the pods of `fleet`. A change names the resourceVersion that was read before it."""

    def __init__(self, fleet: Fleet, reader: NamespaceReader, now: Callable[[], datetime]) -> None:
        self.fleet = fleet
        self.reader = reader
        self._now = now
        self._bakes = Bakes(now)

    @understood
    def groups(self) -> tuple[Group, ...]:
        """Every object whose pods carry the fleet's labels."""
        return tuple(
            Group(name, work.name, work.desired, min(work.available, work.desired), obstacle(work), work.image)
            for name, work in sorted(self.reader.workloads().items())
        )

    @understood
    def pace(self, group: Group, allowed: int) -> Pacing:
        """The pace of the object's own strategy. Raises RefusedError where that breaks one of the fleet's limits."""
        work = self._workload(group)
        return pace_of(group, reach_of(work), _words(work), self.fleet.limits, allowed)

    @understood
    def instead(self, group: Group, target: ReplacementImage, reasons: Sequence[str]) -> str:
        """The pull request for an object that GitOps keeps; empty for one that it does not."""
        work = self._workload(group)
        if not gitops_owner(work.shown) or not work.container:
            return ""
        said = tuple(dict.fromkeys(reasons))
        return instead(work.kind, work.name, self.reader.namespace, work.container, target.reference, said)

    @understood
    def pin(self, group: Group) -> GroupPin:
        """The image that it names, and the one that its pods run, by digest."""
        work = self._workload(group)
        return pinned(work, self._pods(work))

    @understood
    def begin(self, rollout: str, group: Group, target: ReplacementImage, pinned: GroupPin, pacing: Pacing) -> None:
        """Give the object the image, once; one that was held goes on.

        Raises RefusedError where it no longer runs what was pinned, is somebody else's to change by now, or has a
        strategy that breaks a limit.
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
                why = f"{work.called} now runs {work.image}, but {pinned.template} was pinned"
                raise RefusedError(why, hint="somebody else has changed it: plan again")
            if known is None:
                present = replace(group, desired=work.desired)
                pace_of(present, reach_of(work), _words(work), self.fleet.limits, work.desired)
            return note

        self._change(group, ask)

    def hold(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Nothing: its controller rolls all of it, so that no part of it could be left for later."""

    @understood
    def watch(self, rollout: str, group: Group) -> Watched:
        """One look at how far its controller is, and how long all of it has been well."""
        work = self._workload(group)
        note = work.note_of(rollout)
        if note is None and work.image == group.runs:
            return Watched(Progress.ROLLED_BACK, 0, "nothing was begun")
        if note is None or work.image != note.wanted:
            return Watched(Progress.FAILED, 0, f"somebody else has set it to {work.image}")
        pods = self._pods(work)
        seen = rolling(work, pods, note, self._now(), self.fleet.limits.healthy_deadline)
        if note.state is RollState.NEW and not seen.failed:
            return self._baked(group, note, seen)
        progress = {RollState.HELD: Progress.CANCELLED, RollState.BACK: seen.back}.get(note.state, Progress.FAILED)
        stuck = bool(in_the_way(work, pods, note)) and not seen.done
        return Watched(progress, seen.percent, seen.failed or seen.text, stuck=stuck)

    def _baked(self, group: Group, note: RollNote, seen: RollingState) -> Watched:
        """How far the bake is. It starts over when a pod does not serve, and in a process that goes on with it."""
        if not seen.done:
            self._bakes.forget(group.id, note.wanted)
            return Watched(Progress.RUNNING, seen.percent, seen.text)
        return self._bakes.look(group.id, note.wanted, note.bake_seconds, seen.text)

    @understood
    def cancel(self, rollout: str, group: Group, _pinned: GroupPin) -> None:
        """Hold it where it is: a Deployment is paused, the others update no further pod."""

        def ask(work: Workload) -> RollNote | None:
            known = work.note_of(rollout)
            if known is None or known.state is not RollState.NEW or work.image != known.new:
                return None
            return replace(known, state=RollState.HELD)

        self._change(group, ask)

    @understood
    def way_back(self, rollout: str, group: Group, pinned: GroupPin) -> str:
        """Why it cannot go back to what was pinned; empty where it can."""
        return _way_back(self._workload(group), rollout, pinned)

    @understood
    def roll_back(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Give it the pinned image again, by digest, and end what is in the way of that.

        Raises RefusedError where there is no way back.
        """

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
        """End the pods that are in the way of what goes back."""
        work = self._workload(group)
        note = work.note_of(rollout)
        for one in in_the_way(work, self._pods(work), note) if note else ():
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
            self._bakes.forget(group.id, note.wanted)
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
        return f"{work.called} now runs {work.image}, set by somebody else"
    return f"{work.called}: {why}" if (why := obstacle(work)) else ""


def _words(work: Workload) -> StrategyWords:
    """What of an object's strategy is to be changed where it does too much."""
    lower = "in its strategy, lower"
    least = "maxUnavailable" if work.kind == "Deployment" else "maxUnavailable, of which it knows no 0"
    called = f"{work.called} ({work.desired} pods)"
    return StrategyWords(called, f"{lower} {least}", f"{lower} maxSurge", f"{lower} maxSurge or maxUnavailable")
