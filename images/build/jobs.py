"""A plan becomes a job: packages are fetched, and all that the build is a function of stands in one value. Edge."""

from __future__ import annotations

from pathlib import Path

from images.build import BuildJob
from images.context import Context
from images.plan.plan import BuildPlan
from images.plan.planner import Planner
from images.store.oci import Store


def job_for(
    context: Context, planner: Planner, plan: BuildPlan, *, work: Path, store: Store, docker_host: str = ""
) -> BuildJob:
    """The job that carries out `plan` in `work`, its results in `store`. Its parent must be built.

    Raises OutsideError where packages or an upstream base cannot be fetched.
    """
    loaded = context.definitions[plan.name]
    base, bootstrap = loaded.definition.base, planner.bootstrap(loaded)
    return BuildJob(
        name=plan.name,
        definition=loaded.definition,
        definition_folder=loaded.folder,
        platform=plan.platform,
        overlay=plan.overlay,
        packages=plan.added,
        debs=context.index.download(bootstrap, plan.added),
        stanzas=context.index.stanzas(plan.added),
        sources=planner.sources(loaded),
        parent=planner.digests[base.golden] if base.golden else None,
        upstream=planner.upstream.fetch(base.image) if base.image else None,
        work=work,
        store=store,
        docker_host=docker_host,
        archive=plan.inputs.get("archive", ""),
    )
