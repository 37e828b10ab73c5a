"""The JSON Schemas: of what each command prints with `--json`, and of what people write in TOML. Made from the models.

`docs/schemas/<command>.json` is the contract with other programs, `docs/schemas/content/<format>.json` completes in
editors (.taplo.toml says which file is which). `./goldsmith schema` writes them; a test holds that they are up to date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from hardening.foundation.settings import ROOT, Settings
from hardening.model import Cases, Control, Profile, Waiver
from hardening.policy import Policy
from hardening.runtime import Facts
from images.aws.release_store import ShownMachine
from images.model import Definition
from images.registry.release_store import ShownImage
from images.release.channels import ChannelMove
from pipelines import contract
from pipelines.cli.adopt import AdoptLine
from pipelines.cli.affected import AffectedOutput
from pipelines.cli.blast_radius_output import BlastRadiusOutput
from pipelines.cli.check_output import MemberLine, SeenLine
from pipelines.cli.containers import EngineLine, RunLine
from pipelines.cli.controls import ControlDetail, ControlRow, ProofLine
from pipelines.cli.digest_text import DigestOutput
from pipelines.cli.explain import MemberStory
from pipelines.cli.export import ExportLine
from pipelines.cli.feeds import FeedUpdateOutput
from pipelines.cli.image import BuildLine, PlanLine, PublishLine, SignedChannels, WhyOutput
from pipelines.cli.latency import LatencyOutput
from pipelines.cli.network import NetworkDifferenceLine, NetworkStepLine
from pipelines.cli.network_moving import NetworkMoveOutput
from pipelines.cli.outdated import OutdatedOutput
from pipelines.cli.preview_output import PreviewOutput
from pipelines.cli.reap import ReapLine
from pipelines.cli.rendering import OwnImageLine, RenderedLine
from pipelines.cli.report_output import ReportOutput
from pipelines.cli.reproduction import ReproduceOutput
from pipelines.cli.rollout_output import RollbackOutput, RollOutput, StatusOutput
from pipelines.cli.rollout_watch import HistoryLine
from pipelines.cli.signing import KeyLine, TrustLine
from pipelines.cli.simulate import SimulateOutput
from pipelines.cli.teardown import TeardownLine
from pipelines.cli.waiving import NewWaiverOutput, WaiverLine
from pipelines.cli.work_sharing import WorkerStatus
from pipelines.fleet.judged_state import JudgedState
from pipelines.fleet.model import Fleet
from pipelines.network.model import NetworkFile
from pipelines.rollout.base_uptake import UptakeLine
from pipelines.rollout.service import AutoLine

FOLDER = ROOT / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

COMMANDS: dict[str, Any] = {
    "image.list": list[contract.DefinitionLine],
    "image.plan": list[PlanLine],
    "image.build": list[BuildLine],
    "image.verify": list[contract.VerifyLine],
    "image.boot": list[contract.VerifyLine],
    "image.export": list[ExportLine],
    "image.scan": contract.ScanOutput | list[contract.ScanOutput],
    "image.publish": list[PublishLine],
    "image.promote": list[ChannelMove],
    "image.sign-channels": list[SignedChannels],
    "image.rollback": list[ChannelMove],
    "image.revoke": list[ChannelMove],
    "image.show": ShownImage | ShownMachine,
    "image.reproduce": ReproduceOutput,
    "image.verify-trust": list[TrustLine],
    "key.show": list[KeyLine],
    "key.rotate": list[KeyLine],
    "image.why": WhyOutput,
    "image.affected": AffectedOutput,
    "image.outdated": OutdatedOutput,
    "image.prune": list[contract.PruneLine],
    "image.reap": list[ReapLine],
    "image.lock": list[contract.LockLine],
    "image.rebuild": list[contract.ReleaseLine],
    "image.run": list[RunLine],
    "feed.update": FeedUpdateOutput,
    "control.list": list[ControlRow],
    "control.show": ControlDetail,
    "control.check": list[contract.VerifyLine],
    "control.test": list[ProofLine],
    "policy.show": list[Policy],
    "policy.preview": PreviewOutput,
    "waiver.list": list[WaiverLine],
    "waiver.new": NewWaiverOutput,
    "fleet.list": list[contract.FleetLine],
    "fleet.rebuild": list[UptakeLine],
    "fleet.scan": list[SeenLine],
    "fleet.check": list[MemberLine],
    "fleet.explain": MemberStory,
    "fleet.blast-radius": BlastRadiusOutput,
    "network.render": list[RenderedLine],
    "network.apply": list[NetworkStepLine],
    "network.check": list[NetworkDifferenceLine],
    "network.refactor": NetworkMoveOutput,
    "roll.plan": RollOutput,
    "roll.start": RollOutput,
    "roll.rollback": RollbackOutput,
    "roll.status": StatusOutput,
    "roll.history": list[HistoryLine] | list[contract.AuditReport],
    "roll.auto": list[AutoLine],
    "roll.reap": list[ReapLine],
    "roll.simulate": SimulateOutput,
    "adopt": list[AdoptLine],
    "nightly": contract.NightlyOutput,
    "pipeline.image": list[OwnImageLine],
    "pipeline.render": list[RenderedLine],
    "fleet.render": list[RenderedLine],
    "iam.policy": list[RenderedLine],
    "worker.status": WorkerStatus,
    "report": ReportOutput,
    "digest": DigestOutput,
    "latency": LatencyOutput,
    "demo": contract.DemoOutput,
    "engine.show": list[EngineLine],
    "teardown": list[TeardownLine],
    "doctor": list[contract.DoctorLine],
}

# What pages and exports are made of.
DATA: dict[str, Any] = {"judged-state": JudgedState, "snapshot": Facts}

# A format, its model, and the fields that the path carries, so that the file does not.
CONTENT: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    "control": (Control, ("id",)),
    "cases": (Cases, ()),
    "profile": (Profile, ("name",)),
    "policy": (Policy, ("name",)),
    "waiver": (Waiver, ("id",)),
    "image": (Definition, ("name",)),
    "fleet": (Fleet, ("name",)),
    "network": (NetworkFile, ("name",)),
    "goldsmith": (Settings, ()),
}


class _Printed(GenerateJsonSchema):
    """Schemas of output: every field is present, so defaults say nothing."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}


def schemas() -> dict[Path, str]:
    """The text of every schema file, by its path."""
    printed = {FOLDER / f"{command}.json": printed_schema(command) for command in COMMANDS}
    printed |= {FOLDER / "data" / f"{name}.json": _schema_of(kind, name) for name, kind in DATA.items()}
    written = {FOLDER / "content" / f"{form}.json": written_schema(form) for form in CONTENT}
    return {path: json.dumps(schema, indent=2) + "\n" for path, schema in (printed | written).items()}


def printed_schema(command: str) -> dict[str, Any]:
    """The schema of what a command prints with `--json`."""
    return _schema_of(COMMANDS[command], f"./goldsmith {command} --json")


def _schema_of(kind: Any, title: str) -> dict[str, Any]:
    made = TypeAdapter(kind).json_schema(mode="serialization", schema_generator=_Printed)
    return {"$schema": DIALECT, **made, "title": title}


def written_schema(form: str) -> dict[str, Any]:
    """The schema of a content format, without the fields that a file's path carries."""
    model, by_path = CONTENT[form]
    made = model.model_json_schema(mode="validation")
    for field in by_path:
        made["properties"].pop(field)
    made["required"] = [field for field in made.get("required", []) if field not in by_path]
    return {"$schema": DIALECT, **made}


def write_schemas() -> list[Path]:
    """Write what is not up to date, and remove what no command and no format has any more; the paths that changed."""
    wanted = schemas()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    gone = [path for path in FOLDER.rglob("*.json") if path not in wanted]
    for path in gone:
        path.unlink()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return [*stale, *gone]
