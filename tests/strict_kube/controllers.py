"""What the controllers of Deployments, StatefulSets and DaemonSets do in a second, and what becomes of pods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from math import ceil
from typing import Any

Json = dict[str, Any]
STARTS = 3  # seconds from a pod's beginning until it is ready


class Ill(StrEnum):
    """What ails an image: it ends again and again, cannot be pulled, never gets ready, or ends after a while."""

    CRASHES = "crashes"
    GONE = "gone"
    NEVER_READY = "never ready"
    LATER = "later"


LATER = 40  # seconds


@dataclass
class Controllers:
    """The objects of one namespace by kind and name; `touch` gives a changed one a new resourceVersion."""

    objects: dict[tuple[str, str], Json]
    touch: Callable[[Json], None]
    nodes: int = 3
    ill: dict[str, Ill] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def second(self, now: datetime) -> None:
        """One second of every controller and pod."""
        for (kind, _), one in list(self.objects.items()):
            if kind == "pods":
                self._live(one, now)
        for (kind, _), one in list(self.objects.items()):
            step = {"deployments": self._deployment, "statefulsets": self._statefulset,
                    "daemonsets": self._daemonset}.get(kind)  # fmt: skip
            if step:
                before = json.dumps(one["status"], sort_keys=True, default=str)
                step(one, now)
                if json.dumps(one["status"], sort_keys=True, default=str) != before:
                    self.touch(one)

    # -- pods ----------------------------------------------------------------------------------------------------------

    def pods(self, keeper: Json) -> list[Json]:
        """The pods that an object keeps itself, the oldest first."""
        uid = keeper["metadata"]["uid"]
        found = [one for (kind, _), one in self.objects.items() if kind == "pods" and _keeper(one) == uid]
        return sorted(found, key=lambda one: int(one["metadata"]["uid"]))

    def _start(self, keeper: Json, kind: str, template: Json, revision: str, now: datetime, name: str = "") -> None:
        self.made += 1
        named = name or f"{keeper['metadata']['name']}-{self.made:05d}"
        labels = {**template["metadata"]["labels"], "revision": revision}
        pod = {
            "apiVersion": "v1", "kind": "Pod", "spec": deepcopy(template["spec"]),
            "metadata": {
                **deepcopy(template["metadata"]), "name": named, "namespace": keeper["metadata"]["namespace"],
                "uid": str(self.made), "creationTimestamp": stamp(now), "labels": labels,
                "ownerReferences": [reference(keeper, kind)],
            },
            "status": {"phase": "Pending", "conditions": [ready(False, now)], "containerStatuses": []},
        }  # fmt: skip
        self.objects["pods", named] = pod
        self.touch(pod)

    def _end(self, pods: Iterable[Json]) -> None:
        for pod in pods:
            self.objects.pop(("pods", pod["metadata"]["name"]), None)

    def _live(self, pod: Json, now: datetime) -> None:
        """A pod starts, gets ready, or suffers from what ails its first container's image."""
        age = (now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds()
        ill = next((self.ill[one["image"]] for one in pod["spec"]["containers"] if one["image"] in self.ill), None)
        good = age >= STARTS and (ill is None or (ill is Ill.LATER and age < LATER))
        was = pod["status"]["conditions"][0]["status"] == "True"
        if good != was:
            pod["status"]["conditions"] = [ready(good, now)]
            self.touch(pod)
        told = [self._status(one, pod, good, ill, age) for one in pod["spec"]["containers"]]
        phase = "Running" if age >= STARTS and ill is not Ill.GONE else "Pending"
        if told != pod["status"]["containerStatuses"] or phase != pod["status"]["phase"]:
            pod["status"].update(containerStatuses=told, phase=phase)
            self.touch(pod)

    def _status(self, one: Json, pod: Json, good: bool, ill: Ill | None, age: float) -> Json:
        image, restarts, state = one["image"], 0, dict[str, Any]()
        since = pod["metadata"]["creationTimestamp"]
        if ill is Ill.GONE:
            state = {"waiting": {"reason": "ImagePullBackOff", "message": f"no image {image}"}}
        elif age < STARTS:
            state = {"waiting": {"reason": "ContainerCreating"}}
        elif ill is Ill.CRASHES or (ill is Ill.LATER and not good):
            restarts = int((age - (LATER if ill is Ill.LATER else 0)) // 10)
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}
        else:
            state = {"running": {"startedAt": since}}
        before = {each["name"]: each["imageID"] for each in pod["status"]["containerStatuses"]}
        pulled = "" if ill is Ill.GONE or age < STARTS else before.get(one["name"]) or self._pulled(image)
        return {"name": one["name"], "image": image, "imageID": pulled, "ready": good, "restartCount": restarts,
                "containerID": f"containerd://{pod['metadata']['uid']}-{one['name']}" if pulled else "",
                "state": state}  # fmt: skip

    def _pulled(self, image: str) -> str:
        if "@" in image:
            return image
        path, _, tag = image.rpartition(":")
        return f"{path}@{self.digests.get(image) or 'sha256:' + sha256(tag.encode()).hexdigest()}"

    # -- Deployments ---------------------------------------------------------------------------------------------------

    def _deployment(self, one: Json, now: datetime) -> None:
        spec, status = one["spec"], one["status"]
        status["observedGeneration"] = one["metadata"]["generation"]
        revision, desired = revision_of(spec["template"]), spec.get("replicas", 1)
        sets = {each["metadata"]["labels"]["revision"]: each for (kind, _), each in self.objects.items()
                if kind == "replicasets" and _keeper(each) == one["metadata"]["uid"]}  # fmt: skip
        if revision not in sets and not spec.get("paused"):
            sets[revision] = self._replica_set(one, revision, now)
            status.pop("since", None)
        pods = {name: self.pods(each) for name, each in sets.items()}
        if not spec.get("paused"):
            self._roll_sets(one, sets, pods, revision, desired, now)
            pods = {name: self.pods(each) for name, each in sets.items()}
        new = pods.get(revision, [])
        every = [pod for some in pods.values() for pod in some]
        good = len(serving(every))
        status.update(replicas=len(every), updatedReplicas=len(new), readyReplicas=good, availableReplicas=good,
                      unavailableReplicas=max(0, desired - good))  # fmt: skip
        seen = len(new), len(serving(new)), len(every)
        self._progressing(one, seen, seen == (desired, desired, desired), now)

    def _replica_set(self, one: Json, revision: str, now: datetime) -> Json:
        self.made += 1
        labels = {**one["spec"]["template"]["metadata"]["labels"], "revision": revision}
        name = f"{one['metadata']['name']}-{revision}"
        metadata = {"name": name, "namespace": one["metadata"]["namespace"], "uid": str(self.made), "labels": labels,
                    "ownerReferences": [reference(one, "Deployment")]}  # fmt: skip
        spec = {"template": deepcopy(one["spec"]["template"])}
        made = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": spec, "status": {}, "metadata": metadata}
        self.objects["replicasets", name] = made
        self.touch(made)
        return made

    def _roll_sets(
        self, one: Json, sets: dict[str, Json], pods: dict[str, list[Json]], revision: str, desired: int, now: datetime
    ) -> None:
        rolling = one["spec"].get("strategy", {}).get("rollingUpdate", {})
        beside = many(rolling.get("maxSurge", "25%"), desired, up=True)
        missing = many(rolling.get("maxUnavailable", "25%"), desired, up=False)
        missing = missing if beside or missing else 1
        new, old = pods.get(revision, []), [pod for name, some in pods.items() if name != revision for pod in some]
        room = desired + beside - len(new) - len(old)
        for _ in range(min(room, desired - len(new))):
            self._start(sets[revision], "ReplicaSet", one["spec"]["template"], revision, now)
        self._end(new[desired:])
        ill = [pod for pod in old if pod not in serving(old)]
        self._end(ill)
        left = [pod for pod in old if pod not in ill]
        spare = len(serving(new)) + len(left) - (desired - missing)
        self._end(left[: max(0, spare)])

    def _progressing(self, one: Json, seen: tuple[int, ...], done: bool, now: datetime) -> None:
        status, deadline = one["status"], one["spec"].get("progressDeadlineSeconds", 600)
        if status.get("seen") != list(seen):
            status.update(seen=list(seen), since=stamp(now))
        late = (now - datetime.fromisoformat(status.setdefault("since", stamp(now)))).total_seconds() > deadline
        reason = "NewReplicaSetAvailable" if done else "ProgressDeadlineExceeded" if late else "ReplicaSetUpdated"
        status["conditions"] = [{"type": "Progressing", "status": str(reason != "ProgressDeadlineExceeded"),
                                 "reason": reason, "message": f"{one['metadata']['name']}: {reason}"}]  # fmt: skip

    # -- StatefulSets and DaemonSets -----------------------------------------------------------------------------------

    def _statefulset(self, one: Json, now: datetime) -> None:
        """From the highest ordinal down, each once all are ready: a broken pod blocks even the way back.

        https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
        """
        spec, status, name = one["spec"], one["status"], one["metadata"]["name"]
        status["observedGeneration"] = one["metadata"]["generation"]
        update, desired = revision_of(spec["template"]), spec.get("replicas", 1)
        status.setdefault("templates", {})[update] = deepcopy(spec["template"])
        current = status.setdefault("currentRevision", update)
        part = spec.get("updateStrategy", {}).get("rollingUpdate", {}).get("partition", 0)
        pods = {pod["metadata"]["name"]: pod for pod in self.pods(one)}
        for ordinal in range(desired):
            if f"{name}-{ordinal}" not in pods:
                to = update if ordinal >= part and update != current else current
                to = to if to in status["templates"] else update
                self._start(one, "StatefulSet", status["templates"][to], to, now, f"{name}-{ordinal}")
        found = self.pods(one)
        if len(serving(found)) == desired:
            old = [pod for pod in found if pod["metadata"]["labels"]["revision"] != update]
            may = [pod for pod in old if int(pod["metadata"]["name"].rpartition("-")[2]) >= part]
            self._end(sorted(may, key=lambda pod: pod["metadata"]["name"])[-1:])
            if not old:
                status["currentRevision"] = update
        found = self.pods(one)
        new = [pod for pod in found if pod["metadata"]["labels"]["revision"] == update]
        good = len(serving(found))
        status.update(updateRevision=update, replicas=len(found), updatedReplicas=len(new), readyReplicas=good,
                      availableReplicas=good)  # fmt: skip

    def _daemonset(self, one: Json, now: datetime) -> None:
        spec, status = one["spec"], one["status"]
        status["observedGeneration"] = one["metadata"]["generation"]
        update, strategy = revision_of(spec["template"]), spec.get("updateStrategy", {})
        missing = many(strategy.get("rollingUpdate", {}).get("maxUnavailable", 1), self.nodes, up=True)
        pods = self.pods(one)
        if strategy.get("type", "RollingUpdate") != "OnDelete":
            old = [pod for pod in pods if pod["metadata"]["labels"]["revision"] != update]
            ill = [pod for pod in old if pod not in serving(pods)]
            room = missing - (self.nodes - len(serving(pods)))
            self._end(ill)
            self._end([pod for pod in old if pod not in ill][: max(0, room)])
        for _ in range(self.nodes - len(self.pods(one))):
            self._start(one, "DaemonSet", spec["template"], update, now)
        found = self.pods(one)
        new = [pod for pod in found if pod["metadata"]["labels"]["revision"] == update]
        good = len(serving(found))
        status.update(desiredNumberScheduled=self.nodes, currentNumberScheduled=len(found), numberReady=good,
                      updatedNumberScheduled=len(new), numberAvailable=good, numberMisscheduled=0)  # fmt: skip


def stamp(now: datetime) -> str:
    """A moment as the API writes it."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def ready(good: bool, now: datetime) -> Json:
    return {"type": "Ready", "status": str(good), "lastTransitionTime": stamp(now)}


def serving(pods: Iterable[Json]) -> list[Json]:
    """Those that are ready."""
    return [one for one in pods if one["status"]["conditions"][0]["status"] == "True"]


def reference(keeper: Json, kind: str) -> Json:
    meta = keeper["metadata"]
    return {"apiVersion": "apps/v1", "kind": kind, "name": meta["name"], "uid": meta["uid"], "controller": True}


def _keeper(thing: Json) -> str:
    owners = thing["metadata"].get("ownerReferences") or ()
    return str(owners[0]["uid"]) if owners else ""


def revision_of(template: Json) -> str:
    return sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def many(said: Any, of: int, *, up: bool) -> int:
    if str(said).endswith("%"):
        part = int(str(said)[:-1]) * of / 100
        return ceil(part) if up else int(part)
    return int(said)
