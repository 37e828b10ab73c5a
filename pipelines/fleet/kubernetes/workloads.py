"""What a Deployment, StatefulSet or DaemonSet is to a rollout: what it starts, how far it is, what it may do. Pure.

What a rollout has asked of one stands in an annotation of it, which changes together with the image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from math import ceil
from typing import Any

from pydantic import ValidationError

from hardening.foundation.durations import shown
from images.documents import from_json, to_json
from pipelines.fleet.delegated import ALL, Reach, RollingState, rolled_percent, stem
from pipelines.fleet.kubernetes.gitops import gitops_owner
from pipelines.fleet.kubernetes.pod_facts import PodContainer, controller, moment
from pipelines.fleet.members import OWN_LABELS
from pipelines.fleet.port import GroupPin

Json = dict[str, Any]
KINDS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
ASKED = f"{OWN_LABELS}rollout"
MOST_RESTARTS = 3
HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
NEVER = 2**31 - 1  # as the partition of a StatefulSet: no pod is updated


class RollState(StrEnum):
    """A rollout's last request to a workload: to run the new image, to stop where it is, to run the old one again."""

    NEW = "new"
    HELD = "held"
    BACK = "back"


@dataclass(frozen=True)
class RollNote:
    """What a rollout has requested of a workload. `strategy` is its update strategy before it was held."""

    rollout: str
    new: str
    old: str
    state: RollState
    bake_seconds: int = 0
    strategy: str = ""

    @property
    def wanted(self) -> str:
        """The image that it should have."""
        return self.old if self.state is RollState.BACK else self.new

    def text(self) -> str:
        """It as the annotation has it."""
        return json.dumps(to_json(self), sort_keys=True)


@dataclass(frozen=True)
class Workload:
    """One object, as the API shows it, and the container of it that is rolled; empty where that is not clear."""

    kind: str
    shown: Json
    container: str

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.shown["metadata"]["name"])

    @property
    def called(self) -> str:
        """What people call it."""
        return f"the {self.kind} {self.name}"

    @property
    def version(self) -> str:
        """The resourceVersion that a change of it names."""
        return str(self.shown["metadata"].get("resourceVersion") or "")

    @property
    def spec(self) -> Json:
        """What it is asked to be."""
        return dict(self.shown["spec"])

    @property
    def status(self) -> Json:
        """What its controller has made of that."""
        return self.shown.get("status") or {}

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its pods."""
        return dict((self.spec["template"].get("metadata") or {}).get("labels") or {})

    @property
    def containers(self) -> dict[str, str]:
        """The images of its pods' containers, by name."""
        found = self.spec["template"]["spec"]["containers"]
        return {str(one["name"]): str(one.get("image") or "") for one in found}

    @property
    def image(self) -> str:
        """The image that it starts the rolled container from."""
        return self.containers.get(self.container, "")

    @property
    def desired(self) -> int:
        """How many pods it is to have."""
        if self.kind == "DaemonSet":
            return int(self.status.get("desiredNumberScheduled") or 0)
        return int(self.spec.get("replicas", 1))

    @property
    def available(self) -> int:
        """How many of its pods serve."""
        return int(self.status.get("numberAvailable" if self.kind == "DaemonSet" else "availableReplicas") or 0)

    @property
    def strategy(self) -> Json:
        """How it replaces its pods."""
        return self.spec.get("strategy" if self.kind == "Deployment" else "updateStrategy") or {}

    @cached_property
    def note(self) -> RollNote | None:
        """What the last rollout has asked of it; None where none has, or somebody else wrote that."""
        said = (self.shown["metadata"].get("annotations") or {}).get(ASKED, "")
        with suppress(ValueError, ValidationError, RecursionError):
            note = from_json(RollNote, json.loads(said))
            return note if isinstance(json.loads(note.strategy or "{}"), dict) else None
        return None

    def note_of(self, rollout: str) -> RollNote | None:
        """What this rollout has asked of it."""
        return self.note if self.note and self.note.rollout == stem(rollout) else None


# -- what it may do, and what forbids to roll it -----------------------------------------------------------------------


def reach_of(work: Workload) -> Reach:
    """What its own update strategy lets its controller do.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment: 25 % each by
    default, maxSurge rounded up and maxUnavailable down; where both are 0, one pod may be missing.
    """
    rolling = work.strategy.get("rollingUpdate") or {}
    if work.kind == "Deployment":
        if work.strategy.get("type") == "Recreate":
            return Reach(work.desired, 0)
        missing = _many(rolling.get("maxUnavailable", "25%"), work.desired, up=False)
        beside = _many(rolling.get("maxSurge", "25%"), work.desired, up=True)
        return Reach(missing if missing or beside else 1, beside)
    beside = _many(rolling.get("maxSurge", 0), work.desired, up=True) if work.kind == "DaemonSet" else 0
    missing = _many(rolling.get("maxUnavailable", 0 if beside else 1), work.desired, up=True)
    return Reach(missing if missing or beside else 1, beside)


def _many(said: object, desired: int, *, up: bool) -> int:
    text = str(said)
    if text.endswith("%") and text[:-1].isdigit():
        part = int(text[:-1]) * desired / ALL
        return ceil(part) if up else int(part)
    return int(text) if text.isdigit() else desired  # what nobody understands may take all of them


def obstacle(work: Workload) -> str:
    """Why a rollout may not touch it; empty where it may."""
    return next(_obstacles(work), "")


def _obstacles(work: Workload) -> Iterator[str]:
    if owner := gitops_owner(work.shown):
        yield f"{owner} owns it, and would set it back: merge the change where it is defined"
    if (by := controller(work.shown))[0]:
        yield f"{by[0]} {by[1]} makes it, and would set it back: set the image there"
    if not work.container:
        yield f"its pods have several containers ({', '.join(work.containers)}): name one in kubernetes.container"
    elif work.container not in work.containers:
        yield f"its pods have no container {work.container}"
    if work.note and work.note.state is RollState.HELD:
        return  # by a rollout, which knows what its strategy was
    if work.spec.get("paused"):
        yield "it is paused (spec.paused): resume it first"
    if work.strategy.get("type") == "OnDelete":
        yield "its strategy OnDelete replaces a pod only when somebody deletes it: set RollingUpdate"
    if part := (work.strategy.get("rollingUpdate") or {}).get("partition"):
        yield f"its partition {part} keeps pods on the old revision: set it to 0"


# -- what is asked of it -----------------------------------------------------------------------------------------------


def asking(work: Workload, note: RollNote) -> Json:
    """The change that asks for what `note` says: image, annotation and strategy in one, if it is as it was read."""
    strategy = work.note.strategy if work.note and work.note.state is RollState.HELD else ""
    told, spec = note, dict[str, Any]()
    if note.state is RollState.HELD:
        told, spec = replace(note, strategy=json.dumps(work.strategy, sort_keys=True)), _held(work.kind)
    else:
        spec["template"] = {"spec": {"containers": [{"name": work.container, "image": note.wanted}]}}
        if strategy:
            spec |= _released(work.kind, json.loads(strategy))
    annotations = {ASKED: told.text()}
    return {"metadata": {"resourceVersion": work.version, "annotations": annotations}, "spec": spec}


def _held(kind: str) -> Json:
    """What stops its controller where it is."""
    if kind == "Deployment":
        return {"paused": True}
    if kind == "StatefulSet":
        return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": NEVER}}}
    return {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}


def _released(kind: str, strategy: Json) -> Json:
    """What lets it go on, by the strategy that it had."""
    if kind == "Deployment":
        return {"paused": None}
    if kind == "StatefulSet":
        part = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        return {"updateStrategy": {"rollingUpdate": {"partition": part}}}
    return {"updateStrategy": {"type": "RollingUpdate", **strategy}}


def pinned(work: Workload, pods: Sequence[PodContainer]) -> GroupPin:
    """What it runs: the image that it names, and exactly, by digest, the one that most of its pods run for that.

    Where no pod tells a digest, there is none to be had, and the name is all.
    """
    ours = [one.exact for one in pods if one.image == work.image and one.exact]
    digest = Counter(ours).most_common(1)
    return GroupPin(work.image, work.image if "@" in work.image or not digest else digest[0][0])


# -- how far it is -----------------------------------------------------------------------------------------------------


def rolling(
    work: Workload, pods: Sequence[PodContainer], note: RollNote, now: datetime, deadline: timedelta
) -> RollingState:
    """How far it is with what it was asked. A pod that is not ready for longer than `deadline` is not waited for."""
    generation = int(work.shown["metadata"].get("generation") or 0)
    if int(work.status.get("observedGeneration") or 0) < generation:
        return RollingState(done=False, percent=0, text="its controller has not seen the change yet")
    new = [one for one in pods if runs_image(one, note.wanted)]
    ready, desired = sum(one.ready for one in new), work.desired
    percent = rolled_percent(ready, desired)
    text = f"{ready} of {desired} pods run {note.wanted} and are ready"
    done = _complete(work) and ready >= desired
    failed = next(filter(None, (_ill(one, note, now, deadline) for one in new)), "") or _given_up(work)
    return RollingState(done, percent, text, "" if done and note.state is RollState.BACK else failed)


def runs_image(one: PodContainer, wanted: str) -> bool:
    """Whether a pod is of the wanted image, also where something has it pulled from a mirror."""
    digest = wanted.partition("@")[2]
    return one.image == wanted or bool(digest and digest in (one.digest, one.image.partition("@")[2]))


def in_the_way(work: Workload, pods: Sequence[PodContainer], note: RollNote) -> list[PodContainer]:
    """The broken pods of a StatefulSet that goes back: its controller would wait for them for ever.

    https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
    """
    if work.kind != "StatefulSet" or note.state is not RollState.BACK:
        return []
    new = [one for one in pods if runs_image(one, note.new) and not one.pod["metadata"].get("deletionTimestamp")]
    return [one for one in new if not one.ready]


def _complete(work: Workload) -> bool:
    """Whether all of it is new and available, as `kubectl rollout status` decides."""
    said = Counter({key: value for key, value in work.status.items() if isinstance(value, int)})
    if work.kind == "DaemonSet":
        return min(said["updatedNumberScheduled"], said["numberAvailable"]) >= work.desired
    if said["updatedReplicas"] < work.desired or said["availableReplicas"] < work.desired:
        return False
    if work.kind == "StatefulSet":
        return work.status.get("currentRevision") == work.status.get("updateRevision")
    return said["replicas"] <= said["updatedReplicas"]  # the old ones are gone


def _given_up(work: Workload) -> str:
    """Whether the controller itself has waited for too long (progressDeadlineSeconds)."""
    for one in work.status.get("conditions") or ():
        if (one.get("type"), one.get("reason")) == ("Progressing", "ProgressDeadlineExceeded"):
            return f"{work.called}: {one.get('message') or 'its progress deadline is exceeded'}"
    return ""


def _ill(one: PodContainer, note: RollNote, now: datetime, deadline: timedelta) -> str:
    """Why a pod of the asked image is not waited for any more."""
    meta, restarts = one.pod["metadata"], int(one.status.get("restartCount") or 0)
    waiting = (one.status.get("state") or {}).get("waiting") or {}
    said = f": {waiting.get('reason')} {waiting.get('message') or ''}".rstrip()[:300] if waiting else ""
    pod = f"the pod {meta['name']}"
    if waiting.get("reason") in HOPELESS:
        return f"{pod} cannot start{said}"
    if note.state is RollState.NEW and restarts >= MOST_RESTARTS:
        return f"{pod} was started again {restarts} times{said}"
    since = _unready_since(one)
    if not one.ready and not meta.get("deletionTimestamp") and since and now - since > deadline:
        return f"{pod} is not ready for {shown(deadline)} (limits.healthy_deadline){said}"
    return ""


def _unready_since(one: PodContainer) -> datetime | None:
    conditions = (one.pod.get("status") or {}).get("conditions") or ()
    unready = [each.get("lastTransitionTime") for each in conditions
               if each.get("type") == "Ready" and each.get("status") != "True"]  # fmt: skip
    return moment(next(iter(unready), None) or one.pod["metadata"].get("creationTimestamp"))
