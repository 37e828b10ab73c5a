"""The command line: each task parses, wires, calls one flow and prints. `./goldsmith --list` shows them all.

Exit codes: 0 done, 1 usage error or broken invariant, 2 content wrong, 3 refused by policy or gate, 4 the outside world
failed.
Imports are inside the tasks, so that listing them is quick.
"""

import sys
from types import ModuleType, TracebackType

if __name__ == "__main__":  # before the other imports, which Ctrl-C may interrupt too

    def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """End with one line and status 130 where Ctrl-C is handled nowhere else."""
        if kind is not KeyboardInterrupt:
            return sys.__excepthook__(kind, error, trace)
        sys.stderr.write("interrupted\n")
        sys.exit(130)

    sys.excepthook = _end

import atexit
import gc
import inspect
import os
import re
import select
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Annotated, Any


def _spare(module: str, **names: Any) -> None:
    """Replace `module` by an empty one with `names` while Invoke is imported: it needs it for tests or settings."""
    if module not in sys.modules:
        sys.modules[module] = ModuleType(module)
        sys.modules[module].__dict__.update(names, _spared=True)


_spare("unittest.mock", Mock=object)  # with asyncio and SSL, a sixth of our start
_spare("invoke.vendor.yaml", safe_load=None)  # no file is read: see _Config
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would read the metadata of every package for them

atexit.register(gc.freeze)  # else Python ends with a search for garbage: half a second of a night's time

from invoke import Collection, Config, Context, Exit, ParseError, Program, task  # noqa: E402

if hasattr(sys.modules["unittest.mock"], "_spared"):
    del sys.modules["unittest.mock"]  # whoever wants it gets the real one

# The arguments of commands, each with its help.
PRINTED = "the form in which the task prints: several names would print several documents"
TOGETHER = "several are one call; of other tasks with one argument, each is a call of its own"
Names = Annotated[str, "names, globs, or `all`", TOGETHER]
DefinitionName = Annotated[str, "a definition's name"]
MachineName = Annotated[str, "a machine's name"]
Reference = Annotated[str, "a definition's name, name:tag, registry/name:tag, or the beginning of a digest"]
ReleaseDigest = Annotated[str, "a digest, the beginning of one, or name:tag, as tables print it"]
Scanned = Annotated[str, "definitions' names, globs, or `all`; or registry/name:tag or @digest", TOGETHER]
Vulnerability = Annotated[str, "a vulnerability's id, such as CVE-2026-0001"]
Controls = Annotated[str, "controls' ids, globs, or `all`", TOGETHER]
ChangedPolicy = Annotated[str, "a changed policy, or a new one; without it, all content here is compared"]
InsteadOf = Annotated[str, "the policy that it would replace; by default the one with the file's name"]
Against = Annotated[str, "the git revision or directory to compare with; default: the last commit"]
At = Annotated[str, "judge as of this day or moment, such as 2027-01-31"]
ForPullRequest = Annotated[bool, "print it as a comment on a pull request"]
Waived = Annotated[str, "a definition's name, fleet/member, or a glob over these"]
WaivedRule = Annotated[str, "a vulnerability, a control, a rule or a finding, as a refusal names it"]
WaiverReason = Annotated[str, "why it is acceptable until then"]
WaiverOwner = Annotated[str, "who fixes it; default: the owner of the subject"]
Approver = Annotated[str, "who accepts it: a second person"]
WaivedPackage = Annotated[list[str], "the package of a vulnerability; default: the packages found; repeatable"]
WaivedVersion = Annotated[list[str], "the version of these packages; default: the versions found; repeatable"]
WaivedPath = Annotated[list[str], "the path of a secret; default: the paths found; repeatable"]
Expires = Annotated[str, "its last day, such as 2027-01-31; default: 30 days from now"]
Inherited = Annotated[bool, "also in images built on it, for what they inherit from it"]
Justified = Annotated[str, "why the vulnerability does not affect it, in OpenVEX's words"]
WaiverName = Annotated[str, "the name of its file; default: made from subject and rule"]
IntoRoot = Annotated[str, "the content root to write into; default: that of the subject, or the checkout"]
FleetPolicy = Annotated[str, "judge by this policy instead of the fleets' own"]
ContainerImage = Annotated[str, "a container image's name"]
ControlName = Annotated[str, "a control's id"]
Checked = Annotated[str, "image or directory; none with --host"]
FleetName = Annotated[str, "a fleet's name"]
Since = Annotated[str, "only fixes closed since then: a span such as 30d, or a day such as 2026-11-01"]
MetricsFile = Annotated[str, "also write this file, in Prometheus' text format"]
Fleets = Annotated[str, "fleets' names, globs, or `all`", TOGETHER]

NetworkKind = Annotated[str, "nftables, security-groups, docker or kubernetes; or all"]
NetworkRole = Annotated[str, "a role of the network: check a machine of this role, by default this machine"]
RulesetFile = Annotated[str, "a file with that machine's output of `nft -j list ruleset`"]
SocketsFile = Annotated[str, "a file with that machine's output of `ss -Hltnup`"]
OldPeer = Annotated[str, "a role, or a range of addresses such as 10.1.0.0/16"]
NewPeer = Annotated[str, "its new name or range; if the role exists already, the rules move to it"]
TakenOver = Annotated[str | None, "FLEET/MEMBER, an image's name or digest, or a CVE; default: all members"]
Graph = Annotated[str, "also draw the graph into this file, .svg (by Graphviz) or .dot"]
MemberName = Annotated[str, "FLEET/MEMBER, or a member's name or id if only one fleet has it"]
Everyone = Annotated[bool, "also list the members within policy, which are otherwise only counted"]
Json = Annotated[bool, "print JSON on standard output, for other programs"]
Refresh = Annotated[bool, "fetch the mirror's package index first, as every night does"]
NoCache = Annotated[bool, "build even what has not changed"]
TrustPolicy = Annotated[str, "use the keys of this policy; default: the floor's"]
PolicyName = Annotated[str, "judge by this policy instead of the definitions' own"]
JudgedBy = Annotated[str, "the policy that judged it, if that is not the definition's own"]
Stop = Annotated[bool, "remove the container instead"]
Quick = Annotated[bool, "without firmware, to try a control while you edit it"]
Full = Annotated[bool, "with a cloud's answer for cloud-init too"]
Live = Annotated[str, "run only this control, and the checks of every boot"]
OnlyControl = Annotated[str, "only this control; for a directory or a host, a glob too"]
ProfileName = Annotated[str, "for a directory or a host: the profile to check by; default for a host: container-host"]
OR_NOTHING = "its flag may be given without a value, which then is True"
HostAddress = Annotated[
    str | bool, "check a running host: this one, or one at an address such as ssh://ops@web-2", OR_NOTHING
]
Output = Annotated[str, "the file to write"]
Format = Annotated[str, "raw or qcow2"]
Force = Annotated[bool, "overwrite an existing file"]
ScanForm = Annotated[str, "table, json, sarif, cyclonedx or html; default: by the ending of --output"]
ReportForm = Annotated[str, "html, csv, sarif or prometheus; default: by the ending of --output"]
WaiverForm = Annotated[str, "openvex or trivyignore", PRINTED]
WhyOver = Annotated[str, "why, if that release is expired or revoked"]
TakeNow = Annotated[bool, "pin what the tags name now, whatever its cooldown; needs --reason"]
WhyRevoked = Annotated[str, "why, shown to everyone who uses it"]

Adoptable = Annotated[
    list[str],
    "one or more containers (names or globs), compose files or Dockerfiles; or ec2:TAG=VALUE,…, asg:NAME, "
    "ecs:CLUSTER, eks:CLUSTER or kubernetes:NAMESPACE, or one item of these, such as ecs:CLUSTER/SERVICE",
]
Kubeconfig = Annotated[str, "the kubeconfig file for the cluster of a namespace"]
ClusterContext = Annotated[str, "which of its contexts"]
InRegions = Annotated[str, "the regions to look in, separated by commas; default: those of [aws]"]
InAccounts = Annotated[str, "the accounts to look in; default: that of [aws], and those with a role there"]
NewFleet = Annotated[str, "the fleet's name; default: the service's name"]
Becomes = Annotated[str, "the definition, or the tag of an application image, that its members become"]
AlsoDefinition = Annotated[bool, "draft the definition of its image too"]
Follow = Annotated[bool, "keep running somebody else's image, and follow its tag after the cooldown"]
DraftsInto = Annotated[str, "the content root to draft into; default: your first one, or the checkout"]
OtherEngine = Annotated[str, "the engine that runs it, as DOCKER_HOST; default: that of the fleets"]

ScheduleTarget = Annotated[str, "cron, systemd, github, gitlab, kubernetes or eventbridge"]
Scheduled = Annotated[
    str,
    "nightly or fleet.check with arguments, for systemd serve or worker; default: nightly, in an image fleet.check all",
]
TimeOfDay = Annotated[str, "the time of day, such as 02:17"]
Zone = Annotated[str, "its time zone, such as Europe/Berlin"]
Limit = Annotated[str, "how long a run may take"]
OwnImage = Annotated[str, "Goldsmith's image for kubernetes and eventbridge; default: `stable` of `goldsmith`"]
ContentRoot = Annotated[str, "your own folder, which `content` in the settings names"]
IntoFolder = Annotated[str, "the folder to write the files to; default: print them"]

Apply = Annotated[bool, "act; without it the plan is shown and nothing happens"]
Adopt = Annotated[list[str], "take over the unknown member of this name, a glob, or `all`; repeatable"]
AuditReason = Annotated[str, "why, for the audit"]
PlanOutput = Annotated[str, "write the plan to this file, for `roll.start --plan`"]
Markdown = Annotated[bool, "print it as Markdown, for the person who approves it"]
ExactPlan = Annotated[str, "execute exactly the plan in this file, or refuse if anything has changed"]
PlanOfOthers = Annotated[str, "approve the plan in this file, which somebody else made"]
AsOwner = Annotated[bool, "do without a second person's approval, which the audit shows"]
Watch = Annotated[bool, "watch until it is over, live in a terminal"]
RolloutId = Annotated[str, "show the steps of this rollout"]
Seeds = Annotated[int, "how many rollouts"]
Seed = Annotated[int, "the first seed; each seed is one rollout"]

OnlyUrgent = Annotated[
    bool, "only images with an exploited or critical vulnerability that can be fixed now; ends at once without any"
]
DryRun = Annotated[bool, "show what every stage would do, and do nothing"]
DigestDryRun = Annotated[bool, "show what would be sent to whom; nothing is sent or written"]
OnlyImages = Annotated[
    str, "only these images (globs), their bases, and fleets that become them; other fleets are checked, not rolled"
]
Capabilities = Annotated[str, "what it offers, with commas, such as docker,arch:amd64; default: all that is found"]
WorkerParallel = Annotated[int, "how many flows at a time; default: the setting `parallel`"]
Drain = Annotated[bool, "end as soon as nothing is left that it could do"]
Keep = Annotated[bool, "leave everything running, to look at"]
Machines = Annotated[bool, "also what machine images need: QEMU, firmware, disk tools"]
TestPath = Annotated[str, "a test file or folder: run only its tests, without lint and setup"]
TestNames = Annotated[str, "only tests whose names match, as pytest's -k"]
ContentOnly = Annotated[bool, "only the content, in a second: no linters, no types"]
Fast = Annotated[bool, "only tests that need no Docker, QEMU, network or build"]

OwnRole = Annotated[str, "builder, publisher, scanner, roller, reaper, auditor or network"]
PolicyForm = Annotated[str, "json, terraform or cloudformation", PRINTED]
OfAccount = Annotated[str, "the account that the role is in; default: the one that owns the images"]

namespace = Collection()
_BY_ROOM_ALONE = {"worker_run"}  # `worker` runs it: Invoke lets no task and no collection share a name


def command(body: Callable[..., Any]) -> Any:
    """Make an invoke task whose failures become one clear message and the exit code of their family.

    The function `image_build` becomes `image.build`. Its arguments are annotated with their help; those without a
    default are positional, except for lists, whose flag is repeated; an only one takes several words, which `_typed`
    joins. A task may return its exit code.
    """

    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> None:
        sys.dont_write_bytecode = False  # which Invoke turns on: each command would compile all of us again
        from hardening.foundation.errors import GoldsmithError
        from hardening.foundation.text import visible
        from pipelines.cli.task_calls import calls_of, failing

        codes = [0]
        try:
            for name, given in calls_of(kwargs, subject, together, printed):
                with failing(name, codes):
                    codes.append(body(*args, **given) or 0)
        except GoldsmithError as error:
            raise Exit(visible(str(error)), error.exit_code) from None
        if code := max(codes):
            raise Exit(code=code)

    _, *arguments = signature(body).parameters.values()
    help_texts = {one.name: one.annotation.__metadata__[0] for one in arguments}
    repeated = [one.name for one in arguments if one.annotation.__origin__ == list[str]]
    positional = [one.name for one in arguments if one.default is one.empty and one.name not in repeated]
    bare = [one.name for one in arguments if OR_NOTHING in one.annotation.__metadata__]
    subject = positional[0] if len(positional) == 1 else ""
    together = any(one.name == subject and TOGETHER in one.annotation.__metadata__ for one in arguments)
    printed = [one.name for one in arguments if PRINTED in one.annotation.__metadata__]
    made = task(positional=positional, iterable=repeated, optional=bare, help=help_texts)(run)
    room, _, name = body.__name__.partition("_") if "_" in body.__name__ else ("", "", body.__name__)
    if room and room not in namespace.collections:
        namespace.add_collection(Collection(room))
    default = body.__name__ in _BY_ROOM_ALONE or None
    (namespace.collections[room] if room else namespace).add_task(made, name=name, default=default)
    return made


def _show(lines: Sequence[Any], errors: Iterable[Any] = (), **how: Any) -> int:
    """Print lines and what went wrong, as pipelines/cli/image_output.py does; the exit code."""
    from pipelines.cli.image_output import show

    return show(lines, errors, **how)


# --- images and vulnerability data ----------------------------------------------------------------------------------


@command
def image_list(c: Context, json: Json = False) -> int:
    """List the definitions: what was built last, and where their channels point."""
    from dataclasses import replace

    from pipelines.cli.image_output import DEFINITION_COLUMNS, definition_lines
    from pipelines.wiring import image_context

    context = replace(image_context(looks=True), lenient=True)
    shown = _show(definition_lines(context), context.unsound.values(), columns=DEFINITION_COLUMNS, as_json=json)
    if not json:
        from pipelines.cli.waiving import announce_ending

        announce_ending(context.settings.roots, context.now)
    return shown


@command
def image_plan(c: Context, name: Names, refresh: Refresh = False, json: Json = False) -> int:
    """Show what a build would do, and why. Builds nothing."""
    from pipelines.cli.image import PLAN_COLUMNS, plan_images

    return _show(*plan_images(name, refresh=refresh), columns=PLAN_COLUMNS, as_json=json)


@command
def image_build(
    c: Context, name: Names, policy: PolicyName = "", no_cache: NoCache = False, refresh: Refresh = False,
    json: Json = False,
) -> int:  # fmt: skip
    """Build and verify what changed, and its parents; machines are booted, scanned and gated too."""
    from pipelines.cli.image import BUILD_COLUMNS, build_images

    outcomes = build_images(name, no_cache=no_cache, refresh=refresh, policy=policy)
    return _show(*outcomes, columns=BUILD_COLUMNS, as_json=json)


@command
def image_verify(c: Context, name: Names, json: Json = False) -> int:
    """Run every control's check again on the newest artifact."""
    from pipelines.cli.image import verify_images
    from pipelines.cli.image_output import show_checks

    return show_checks(*verify_images(name), as_json=json)


@command
def image_boot(
    c: Context, name: MachineName, quick: Quick = False, full: Full = False, control: Live = "", json: Json = False
) -> int:
    """Boot a machine's current definition, built for this boot if it changed, and run its live checks in it."""
    from pipelines.cli.export import boot_image
    from pipelines.cli.image_output import show_checks

    return show_checks(boot_image(name, quick=quick, full=full, control=control), as_json=json)


@command
def image_export(
    c: Context, name: MachineName, output: Output = "", form: Format = "raw", force: Force = False, json: Json = False
) -> int:
    """Write a machine's disk to a new file, for private clouds and hypervisors."""
    from pipelines.cli.export import EXPORT_COLUMNS, export_image

    return _show(export_image(name, form, output, force=force), columns=EXPORT_COLUMNS, as_json=json)


@command
def image_scan(
    c: Context, ref: Scanned, policy: PolicyName = "", form: ScanForm = "", output: Output = "", json: Json = False
) -> int:
    """Scan any image with every scanner, and show what the gate would decide."""
    from pipelines.cli.scanning import form_of, require_one, scan_images, show_scans

    chosen = "json" if json else form_of(form, output)
    require_one(ref, chosen, output)
    return show_scans(ref, scan_images(ref, policy), form=chosen, output=output)


@command
def image_publish(c: Context, name: Names, policy: PolicyName = "", json: Json = False) -> int:
    """Build, scan, gate and publish to the candidate channel; re-date what is near its expiry."""
    from pipelines.cli.image import PUBLISH_COLUMNS, publish_images

    return _show(*publish_images(name, policy), columns=PUBLISH_COLUMNS, as_json=json)


@command
def image_promote(c: Context, name: Names, policy: JudgedBy = "", json: Json = False) -> int:
    """Move `stable` to what `candidate` points to."""
    from pipelines.cli.image import CHANNEL_COLUMNS, promote_images

    return _show(*promote_images(name, policy), columns=CHANNEL_COLUMNS, as_json=json)


@command
def image_rollback(c: Context, name: DefinitionName, reason: WhyOver = "", json: Json = False) -> int:
    """Move `stable` back to the release that it pointed to before."""
    from pipelines.cli.image import CHANNEL_COLUMNS, rollback_image

    return _show(rollback_image(name, reason), columns=CHANNEL_COLUMNS, as_json=json)


@command
def image_sign_channels(c: Context, name: Names, json: Json = False) -> int:
    """Sign again where the channels of images point, and put their tags right; each night does it too."""
    from pipelines.cli.image import SIGNED_COLUMNS, sign_channels

    return _show(*sign_channels(name), columns=SIGNED_COLUMNS, as_json=json)


@command
def image_revoke(c: Context, digest: ReleaseDigest, reason: WhyRevoked = "", json: Json = False) -> int:
    """Revoke a release and everything built on it, everywhere and at once. This cannot be undone."""
    from pipelines.cli.image import CHANNEL_COLUMNS, revoke_release

    moved = revoke_release(digest, reason)
    return _show(moved, columns=CHANNEL_COLUMNS, as_json=json, empty="no channel points to a revoked release")


@command
def image_verify_trust(c: Context, ref: Reference, policy: TrustPolicy = "", json: Json = False) -> int:
    """Verify the signatures of any image; show what they prove, or the first problem."""
    from pipelines.cli.signing import TRUST_COLUMNS, verify_trust

    return _show(verify_trust(ref, policy), columns=TRUST_COLUMNS, as_json=json)


@command
def image_reproduce(c: Context, ref: Reference, policy: TrustPolicy = "", json: Json = False) -> int:
    """Rebuild a published image from its signed provenance: the same digest, or the first file that differs."""
    from pipelines.cli.reproduction import reproduce_image, show_reproduced

    return show_reproduced(reproduce_image(ref, policy), as_json=json)


@command
def image_show(c: Context, ref: Reference, json: Json = False) -> None:
    """Show everything about a published image, from the registry alone."""
    from pipelines.cli.image import print_release, show_release

    print_release(show_release(ref), as_json=json)


@command
def image_why(c: Context, name: DefinitionName, json: Json = False) -> None:
    """Show which input changed since the last artifact, packages old → new."""
    from pipelines.cli.image import show_why, why_image

    show_why(why_image(name), as_json=json)


@command
def image_outdated(c: Context, ref: Scanned, policy: PolicyName = "", json: Json = False) -> int:
    """Show what is newer than an image outside, with reason and urgency. Builds nothing."""
    from pipelines.cli.outdated import show_outdated, what_is_outdated

    return show_outdated(*what_is_outdated(ref, policy=policy), as_json=json)


@command
def image_affected(c: Context, vulnerability: Vulnerability, json: Json = False) -> int:
    """Find the releases and running members with a vulnerability: since when, the fix, the deadline, who acts."""
    from pipelines.cli.affected import show_affected, who_is_affected

    return show_affected(who_is_affected(vulnerability), as_json=json)


@command
def image_prune(c: Context, apply: Apply = False, json: Json = False) -> int:
    """Remove expired and superseded releases that nothing uses, with everything attached to them."""
    from pipelines.cli.image import PRUNE_COLUMNS, prune_images

    empty = "nothing to remove"
    return _show(prune_images(apply=apply), columns=PRUNE_COLUMNS, as_json=json, empty=empty)


@command
def image_reap(c: Context, apply: Apply = False, json: Json = False) -> int:
    """Find orphans of killed runs at AWS that no line of the ledger owns; remove those that are due."""
    from pipelines.cli.reap import REAP_COLUMNS, reap_images

    return _show(reap_images(apply=apply), columns=REAP_COLUMNS, as_json=json, empty="no orphan was found")


@command
def image_lock(c: Context, name: Names, now: TakeNow = False, reason: AuditReason = "", json: Json = False) -> int:
    """Move the pinned digests of upstream bases, in images.lock.toml, to the newest past their cooldown."""
    from pipelines.cli.image import LOCK_COLUMNS, lock_upstreams

    empty = "nothing to move: none of these definitions is based on an upstream image"
    return _show(*lock_upstreams(name, now=now, reason=reason), columns=LOCK_COLUMNS, as_json=json, empty=empty)


@command
def image_run(c: Context, name: ContainerImage, stop: Stop = False, json: Json = False) -> int:
    """Run an image as its definition says: read-only, no capabilities, its tmpfs and user, ports on loopback."""
    from pipelines.cli.containers import run_image, show_run

    return show_run(run_image(name, stop=stop), as_json=json)


@command
def image_rebuild(c: Context, json: Json = False) -> int:
    """Rebuild the ledger from the registry, which is authoritative for what was published."""
    from pipelines.cli.image import RELEASE_COLUMNS, rebuild_ledger

    empty = "no release was found there"
    return _show(*rebuild_ledger(), columns=RELEASE_COLUMNS, as_json=json, empty=empty)


@command
def feed_update(c: Context, json: Json = False) -> int:
    """Fetch newer data from every feed, and show what it changes for the images that the ledger knows."""
    from pipelines.cli.feeds import show_update, update_feeds

    return show_update(update_feeds(), as_json=json)


# --- controls and policies ------------------------------------------------------------------------------------------


@command
def key_show(c: Context, json: Json = False) -> int:
    """Show this installation's signing keys, in the form that another policy takes."""
    from pipelines.cli.signing import KEY_COLUMNS, show_keys

    return _show(show_keys(), columns=KEY_COLUMNS, as_json=json)


@command
def key_rotate(c: Context, json: Json = False) -> int:
    """Sign with a new key from now on. Signatures of the old key stay trusted; its private half is removed."""
    from pipelines.cli.signing import KEY_COLUMNS, rotate_keys

    return _show(rotate_keys(), columns=KEY_COLUMNS, as_json=json)


@command
def control_list(c: Context, json: Json = False) -> int:
    """List the controls, and the profiles that use them."""
    from pipelines.cli.controls import CONTROL_COLUMNS, control_rows

    return _show(control_rows(), columns=CONTROL_COLUMNS, as_json=json)


@command
def control_show(c: Context, name: ControlName, json: Json = False) -> None:
    """Show one control: its reason, its cost, its parameters, its check."""
    from pipelines.cli.controls import show_control_of

    show_control_of(name, as_json=json)


@command
def control_check(
    c: Context, name: Checked = "", control: OnlyControl = "", profile: ProfileName = "", host: HostAddress = "",
    json: Json = False,
) -> int:  # fmt: skip
    """Check an image's newest artifact, a filesystem in a directory by --profile, or a host, against controls.

    `./goldsmith control.check debian-server` checks an image, `control.check /mnt/disk --profile cis-level1` a
    directory, `control.check --host ssh://ops@web-2` a host: nothing is installed or changed there.
    """
    from pipelines.cli.controls import check_a_host, check_directory, means_folder, require_one_subject
    from pipelines.cli.image import verify_images
    from pipelines.cli.image_output import show_checks

    require_one_subject(name, host)
    if host:
        return show_checks(check_a_host("" if host is True else str(host), profile, control), as_json=json)
    folder = profile or means_folder(name)
    if folder:
        return show_checks(check_directory(name, profile, control), as_json=json)
    return show_checks(*verify_images(name, control=control), as_json=json)


@command
def control_test(c: Context, name: Controls, json: Json = False) -> int:
    """Prove a control by its cases.toml: its check must fail on the broken tree and pass where it was applied."""
    from pipelines.cli.controls import prove_controls, show_proofs

    return show_proofs(prove_controls(name), as_json=json)


@command
def policy_show(c: Context, name: Names, json: Json = False) -> None:
    """Show what a policy requires of images and members, and when it must be reviewed."""
    from pipelines.cli.controls import show_policies

    show_policies(name, as_json=json)


@command
def policy_preview(
    c: Context, file: ChangedPolicy = "", instead_of: InsteadOf = "", against: Against = "", at: At = "",
    markdown: ForPullRequest = False, json: Json = False,
) -> int:  # fmt: skip
    """Show which images and members changed policies, profiles, controls or waivers would newly refuse or allow.

    `./goldsmith policy.preview` compares the checkout with the last commit, `--against origin/main` with a branch,
    and a FILE with the policy of its name.
    """
    from pipelines.cli.preview import preview, show_preview

    return show_preview(preview(file, instead_of, against, at), as_json=json, as_markdown=markdown)


@command
def waiver_list(c: Context, json: Json = False) -> int:
    """List the waivers, what they cover and when they end."""
    from pipelines.cli.waiving import show_waivers, waiver_lines

    return show_waivers(waiver_lines(), as_json=json)


@command
def waiver_new(
    c: Context, subject: Waived, rule: WaivedRule, package: WaivedPackage, version: WaivedVersion, path: WaivedPath,
    reason: WaiverReason = "", owner: WaiverOwner = "", approver: Approver = "", expires: Expires = "",
    inherited: Inherited = False, justification: Justified = "", name: WaiverName = "", content: IntoRoot = "",
    json: Json = False,
) -> int:  # fmt: skip
    """Write a new waiver for SUBJECT and RULE, and show what it allows."""
    from pipelines.cli.waiving import new_waiver, show_new

    made = new_waiver(
        subject, rule, packages=package, versions=version, paths=path, reason=reason, owner=owner, approver=approver,
        expires=expires, inherited=inherited, justification=justification, name=name, content=content,
    )  # fmt: skip
    return show_new(made, as_json=json)


@command
def waiver_export(c: Context, image: DefinitionName, form: WaiverForm = "openvex") -> None:
    """Print an image's waivers in force, in a form that other scanners read."""
    from hardening.foundation.console import out
    from pipelines.cli.waiving import export_waivers

    out().out(export_waivers(form, image), highlight=False, end="")


# --- fleets and their network ---------------------------------------------------------------------------------------


@command
def fleet_list(c: Context, json: Json = False) -> int:
    """List the fleets."""
    from pipelines.cli.controls import FLEET_COLUMNS, fleet_lines

    empty = "no fleet is defined; ./goldsmith adopt drafts one from a service, CONTRIBUTING.md shows how to write one"
    return _show(fleet_lines(), columns=FLEET_COLUMNS, as_json=json, empty=empty)


@command
def fleet_scan(c: Context, name: Names, json: Json = False) -> int:
    """Record what the fleets run, on all hosts and in all regions; exit code 4: something was not read."""
    from pipelines.cli.rollout import SEEN_COLUMNS, scan_exit_code, scan_fleets

    lines, errors = scan_fleets(name)
    code = _show(lines, errors, columns=SEEN_COLUMNS, as_json=json, empty="no member was found")
    return code or scan_exit_code(lines)


@command
def fleet_check(
    c: Context, fleet: Fleets, policy: FleetPolicy = "", all: Everyone = False, json: Json = False,  # noqa: A002
) -> int:  # fmt: skip
    """Find the members that are out of policy, by their image or by how they run; exit code 3: there are some."""
    from pipelines.cli.rollout import check_fleets, show_fleets

    return show_fleets(check_fleets(fleet, policy), as_json=json, everyone=all)


@command
def fleet_explain(c: Context, member: MemberName, json: Json = False) -> int:
    """Explain one member: its image, its violations and since when, what happens next, what its owner can do."""
    from pipelines.cli.explain import explain_member, show_story

    return show_story(explain_member(member), as_json=json)


@command
def fleet_blast_radius(c: Context, taken: TakenOver = None, output: Graph = "", json: Json = False) -> int:
    """Show what an attacker reaches from a member, and which single changes shrink that.

    `./goldsmith fleet.blast-radius shop/web-1` evaluates one member, `fleet.blast-radius nginx` all members that run
    that image, `fleet.blast-radius CVE-2026-0001` all with that vulnerability; without a name it compares all members.
    Exit code 4: a fleet was never checked, or the last check or IAM could not read something, which is named.
    """
    from pipelines.cli.blast_radius import blast_radius, show_radius

    return show_radius(blast_radius(taken, output), as_json=json)


@command
def fleet_render(
    c: Context, fleet: FleetName, output: IntoFolder = "", force: Force = False, json: Json = False
) -> None:
    """Render manifests for a Kubernetes fleet: roles to read and roll it, a policy that verifies signatures."""
    from pipelines.cli.rendering import render_manifests, show_rendered

    show_rendered(render_manifests(fleet, output=output, force=force), as_json=json)


@command
def network_render(
    c: Context, kind: NetworkKind, output: IntoFolder = "", force: Force = False, json: Json = False
) -> None:
    """Render the network for nftables, security-groups, docker, kubernetes, or all of them. Changes nothing."""
    from pipelines.cli.network import render_network
    from pipelines.cli.rendering import show_rendered

    show_rendered(render_network(kind, output=output, force=force), as_json=json)


@command
def network_apply(c: Context, kind: NetworkKind, apply: Apply = False, json: Json = False) -> int:
    """Show or make the changes that bring definitions, groups and Docker networks in line with the network."""
    from pipelines.cli.network import apply_network, show_steps

    return show_steps(*apply_network(kind, apply=apply), as_json=json)


@command
def network_check(
    c: Context, kind: NetworkKind = "all", role: NetworkRole = "", ruleset: RulesetFile = "", sockets: SocketsFile = "",
    json: Json = False,
) -> int:  # fmt: skip
    """Show what is more or less open than the network says, or unknown; exit code 3: it differs, 4: unread.

    `./goldsmith network.check --role db` checks the machine it runs on, as one of the role db; with --ruleset and
    --sockets it checks the machine that these files come from.
    """
    from pipelines.cli.network import check_network, show_differences

    return show_differences(check_network(kind, role, ruleset, sockets), as_json=json)


@command
def network_refactor(c: Context, old: OldPeer, new: NewPeer, apply: Apply = False, json: Json = False) -> int:
    """Rename a role or range everywhere it is used: show who gains and loses access, or do it."""
    from pipelines.cli.network_moving import refactor, show_move

    return show_move(refactor(old, new, apply=apply), as_json=json)


@command
def fleet_rebuild(c: Context, name: Fleets, apply: Apply = False, json: Json = False) -> int:
    """Find application images whose golden base has a newer release; tell their owners and request new builds."""
    from pipelines.cli.rollout import NO_UPTAKE, UPTAKE_COLUMNS, rebuild_applications

    return _show(*rebuild_applications(name, apply=apply), columns=UPTAKE_COLUMNS, as_json=json, empty=NO_UPTAKE)


@command
def adopt(
    c: Context, what: Adoptable, name: NewFleet = "", replacement: Becomes = "", definition: AlsoDefinition = False,
    content: DraftsInto = "", engine: OtherEngine = "", regions: InRegions = "", accounts: InAccounts = "",
    kubeconfig: Kubeconfig = "", context: ClusterContext = "", follow: Follow = False, apply: Apply = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Draft fleets from CONTAINER…, compose.yaml, Dockerfile, ec2:TAG=VALUE, asg:, ecs:, eks: or kubernetes:NAME."""
    from pipelines.cli.adopt import ECS, EKS, KUBERNETES, adopt, in_cloud, show_adopted

    cloud = in_cloud(what, definition=definition, engine=engine, follow=follow)
    if cloud and what[0].startswith(KUBERNETES):
        from pipelines.cli.adopt_kubernetes import adopt_kubernetes

        found = adopt_kubernetes(
            what, kubeconfig=kubeconfig, cluster=context, name=name, replacement=replacement, content=content,
            apply=apply,
        )  # fmt: skip
    elif cloud:
        from pipelines.cli.adopt_clusters import adopt_cluster
        from pipelines.cli.adopt_ec2 import adopt_ec2

        found = (adopt_cluster if what[0].startswith((ECS, EKS)) else adopt_ec2)(
            what, name=name, replacement=replacement, content=content, regions=regions, accounts=accounts, apply=apply
        )
    else:
        found = adopt(
            what, name=name, replacement=replacement, definition=definition, content=content, engine=engine,
            follow=follow,
        )  # fmt: skip
    show_adopted(found, as_json=json)


@command
def roll_plan(
    c: Context, fleet: FleetName, adopt: Adopt, output: PlanOutput = "", markdown: Markdown = False, json: Json = False
) -> None:
    """Show what a rollout of the fleet would do: waves, steps, time, calls; or why it is refused."""
    from pipelines.cli.rollout import plan_roll, show_plan

    show_plan(plan_roll(fleet, adopt, output), as_json=json, as_markdown=markdown, file=output)


@command
def roll_start(
    c: Context, fleet: FleetName, adopt: Adopt, plan: ExactPlan = "", approve_as_owner: AsOwner = False,
    apply: Apply = False, json: Json = False,
) -> int:  # fmt: skip
    """Replace the violating members wave by wave; remove each old one once its new one is healthy, or roll back."""
    from pipelines.cli.rollout import roll_fleet, show_roll

    roll = roll_fleet(fleet, apply=apply, adopt=adopt, file=plan, as_owner=approve_as_owner)
    return show_roll(roll, as_json=json, file=plan, as_owner=approve_as_owner, adopt=adopt)


@command
def roll_status(c: Context, fleet: FleetName, watch: Watch = False, json: Json = False) -> int:
    """Show the fleet's rollout: wave, members, what it waits for, which process executes it."""
    from pipelines.cli.rollout_watch import show_status

    return show_status(fleet, watch=watch, as_json=json)


@command
def roll_history(c: Context, fleet: FleetName, rollout: RolloutId = "", json: Json = False) -> None:
    """List the fleet's rollouts, the newest first."""
    from pipelines.cli.rollout_watch import show_history

    show_history(fleet, rollout, as_json=json)


def _tell(fleet: str, what: str, reason: str) -> None:
    """Tell the fleet's current rollout to pause, resume, approve or abort."""
    from pipelines.cli.rollout_watch import command
    from pipelines.rollout.state import Command

    command(fleet, Command(what), reason)


@command
def roll_pause(c: Context, fleet: FleetName, reason: AuditReason = "") -> None:
    """Pause the rollout; in-progress replacements continue to a safe point."""
    _tell(fleet, "pause", reason)


@command
def roll_resume(c: Context, fleet: FleetName, reason: AuditReason = "") -> None:
    """Resume a paused rollout."""
    _tell(fleet, "resume", reason)


@command
def roll_approve(c: Context, fleet: FleetName, plan: PlanOfOthers = "", reason: AuditReason = "") -> None:
    """End the bake now, and promote its wave; with --plan, approve a plan that has not begun."""
    if not plan:
        _tell(fleet, "approve", reason)
        return
    from pipelines.cli.rollout import approve

    approve(fleet, plan, reason)


@command
def roll_abort(c: Context, fleet: FleetName, reason: AuditReason = "") -> None:
    """End the rollout: roll the current wave back; promoted members stay."""
    _tell(fleet, "abort", reason)


@command
def roll_rollback(
    c: Context, fleet: FleetName, reason: AuditReason = "", apply: Apply = False, json: Json = False
) -> int:
    """Roll every member that the rollout has replaced back to the version it ran before."""
    from pipelines.cli.rollout import roll_back

    return roll_back(fleet, reason, apply=apply, as_json=json)


@command
def roll_auto(c: Context, name: Fleets, apply: Apply = False, json: Json = False) -> int:
    """Bring fleets back into policy as far as their files allow, or request the approval that they require."""
    from pipelines.cli.auto_roll import AUTO_COLUMNS, auto_roll

    return _show(*auto_roll(name, apply=apply), columns=AUTO_COLUMNS, as_json=json, long="detail")


@command
def roll_simulate(c: Context, seeds: Seeds = 1000, seed: Seed = 0, json: Json = False) -> int:
    """Roll simulated fleets under faults drawn from seeds; exit code 1: an invariant is broken."""
    from pipelines.cli.simulate import show_simulation, simulate_rollouts

    return show_simulation(simulate_rollouts(seeds, seed), as_json=json)


@command
def roll_reap(c: Context, apply: Apply = False, json: Json = False) -> int:
    """Find what rollouts launched and nothing owns any more, on Docker and EC2; remove what is due."""
    from pipelines.cli.reap import REAP_COLUMNS, reap_rollouts

    lines, errors = reap_rollouts(apply=apply)
    return _show(lines, errors, columns=REAP_COLUMNS, as_json=json, empty="no orphan was found")


# --- every night, on one machine or several -------------------------------------------------------------------------


@command
def nightly(
    c: Context, policy: PolicyName = "", only: OnlyImages = "all", only_urgent: OnlyUrgent = False,
    dry_run: DryRun = False, json: Json = False,
) -> int:  # fmt: skip
    """Refresh, rebuild, gate, publish, roll, report; completes an interrupted night. Exit code: who must act."""
    from hardening.foundation.bulk import no_collection

    with no_collection():
        from pipelines.nightly.command import run_nightly, show_nightly

    return show_nightly(run_nightly(policy, only, urgent=only_urgent, dry=dry_run), as_json=json)


@command
def serve(c: Context, policy: PolicyName = "") -> int:
    """Keep running: nights by a schedule, urgent fixes, webhooks; serves the report, health and metrics."""
    from pipelines.cli.serve import serve

    return serve(policy)


@command
def report(c: Context, form: ReportForm = "", output: Output = "", json: Json = False) -> int:
    """Write a page with what lacks a fix, since when, due when and who acts; or the judged members in another form."""
    from pipelines.cli.report import make_report

    return make_report(form, output, as_json=json)


@command
def digest(c: Context, dry_run: DigestDryRun = False, json: Json = False) -> int:
    """Send the channels of [digest], by mail and chat, what is new, still open, acted on and ended."""
    from pipelines.cli.digest import run_digest
    from pipelines.wiring import image_context

    return run_digest(image_context(looks=dry_run), dry=dry_run, as_json=json)


@command
def latency(c: Context, since: Since = "", metrics: MetricsFile = "", json: Json = False) -> int:
    """Show how long fixes took to the last member, against the policy's windows, and which are still open."""
    from pipelines.cli.latency import patch_latency, show_latency

    return show_latency(patch_latency(since), metrics=metrics, as_json=json)


@command
def demo(c: Context, keep: Keep = False, json: Json = False) -> int:
    """Run the whole loop on this machine: build, publish, run, find violations, replace without a lost request."""
    from pipelines.demo.flow import demo

    return demo(keep=keep, as_json=json)


@command
def iam_policy(
    c: Context, role: OwnRole, form: PolicyForm = "json", account: OfAccount = "", output: IntoFolder = "",
    force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Render the least-privilege IAM policy of one of our roles, such as roller, auditor or network."""
    from pipelines.cli.iam import render_policies
    from pipelines.cli.rendering import show_rendered

    show_rendered(render_policies(role, form=form, account=account, output=output, force=force), as_json=json)


def _require_task(words: Sequence[str]) -> None:
    """Raise UsageError for words that are not a task with its arguments."""
    from invoke.parser import Parser

    from hardening.foundation.errors import UsageError

    try:
        Parser(contexts=namespace.to_contexts()).parse_argv(_typed(words))
    except ParseError as error:
        raise UsageError(f"--run: {error}", hint=f"./goldsmith {words[0]} --help shows its arguments") from None


@command
def pipeline_render(
    c: Context, target: ScheduleTarget, run: Scheduled = "", at: TimeOfDay = "02:17", zone: Zone = "UTC",
    limit: Limit = "3h", image: OwnImage = "", output: IntoFolder = "", force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Render a schedule for cron, systemd, GitHub, GitLab, Kubernetes or EventBridge. It contains no secrets."""
    from pipelines.cli.rendering import render_schedule, show_rendered

    lines = render_schedule(
        target, run, at=at, zone=zone, limit=limit, image=image, output=output, force=force, check=_require_task
    )
    show_rendered(lines, as_json=json)


@command
def pipeline_image(c: Context, output: ContentRoot, force: Force = False, json: Json = False) -> int:
    """Write the definition of Goldsmith's own image, of this checkout's last commit, into the content root OUTPUT."""
    from pipelines.cli.rendering import IMAGE_COLUMNS, write_image

    return _show(write_image(output, force=force), columns=IMAGE_COLUMNS, as_json=json)


@command
def worker_run(c: Context, capabilities: Capabilities = "", parallel: WorkerParallel = 0, drain: Drain = False) -> int:
    """Do shared work of nights over PostgreSQL, until SIGTERM; on as many machines as you like."""
    from pipelines.cli.work_sharing import serve

    return serve(capabilities, parallel, drain=drain)


@command
def worker_status(c: Context, json: Json = False) -> None:
    """Show live workers, what each does, what waits for what, and quarantined flows with their logs."""
    from pipelines.cli.work_sharing import show_workers, worker_status

    show_workers(worker_status(), as_json=json)


# --- this machine ---------------------------------------------------------------------------------------------------


def _setup(**wanted: bool) -> None:
    from hardening.foundation.settings import load_settings
    from pipelines.cli.signing import ensure_key
    from pipelines.host.provision import setup
    from pipelines.wiring import keep_private, tell_of_others

    settings = load_settings()
    keep_private(settings.state_dir)
    tell_of_others(settings.state_dir)
    setup(settings, **wanted)
    ensure_key(settings)


@command
def setup(c: Context, machines: Machines = False) -> None:
    """Install the packages that this machine lacks, named first, and make sure that a Docker Engine runs."""
    _setup(for_machines=machines)


@command
def engine_show(c: Context, json: Json = False) -> None:
    """Print which Docker Engine is used, for the shell: eval "$(./goldsmith engine.show)". Starts none."""
    from pipelines.cli.containers import show_engines

    show_engines(as_json=json)


@command
def teardown(c: Context, apply: Apply = False, json: Json = False) -> int:
    """Remove what Goldsmith made on this machine: containers, private engine, bridges, registry, state."""
    from pipelines.cli.teardown import TEARDOWN_COLUMNS, tear_down

    return _show(tear_down(apply=apply), columns=TEARDOWN_COLUMNS, as_json=json, empty="nothing of Goldsmith is here")


@command
def doctor(c: Context, json: Json = False) -> int:
    """Show what this machine has, what it lacks, and what does not work without it. Changes nothing."""
    from hardening.foundation.settings import load_settings
    from pipelines.host.doctor import examine, show

    return show(examine(load_settings()), as_json=json)


@command
def schema(c: Context) -> None:
    """Write docs/schemas: what `--json` prints, and what editors complete in content files."""
    from hardening.foundation.console import say
    from pipelines.cli.schemas import write_schemas

    for path in write_schemas():
        say(f"written: {path}")


@command
def lint(c: Context, content: ContentOnly = False) -> int:
    """Cross-check all content; run linter, formatter and type checker over the whole checkout."""
    from pipelines.lint import LINT, lint_content, run_checks

    return lint_content() if content else max(lint_content(), run_checks(LINT))


@command
def test(c: Context, path: TestPath = "", only: TestNames = "", fast: Fast = False) -> int:
    """Run `lint` and every test. The linters run beside `setup`, which mostly waits, or beside the tests."""
    from concurrent.futures import ThreadPoolExecutor

    from pipelines.lint import LINT, compile_tests, lint_content, pytest_command, run_checks, run_tests

    tests = pytest_command(path, only, fast=fast)
    if path:
        return run_checks([tests])
    with ThreadPoolExecutor(max_workers=2) as pool:
        linted, compiled = pool.submit(run_checks, LINT), pool.submit(compile_tests)
        if not fast:
            _setup(for_tests=True)
        compiled.result()
        return max(lint_content(), run_tests(tests), linted.result())


# --- the program ----------------------------------------------------------------------------------------------------


class _Config(Config):
    """Invoke's settings, of no file: it would read some in HOME, which may be another user's."""

    def _load_file(self, prefix: str, absolute: bool = False, merge: bool = True) -> None:
        del prefix, absolute, merge


class _Program(Program):
    """Invoke's own program, which also says what a mistyped task or flag may have meant. Exit code 1."""

    def parse_tasks(self) -> None:
        from hardening.foundation.errors import closest, nearest
        from hardening.foundation.text import visible

        try:
            super().parse_tasks()
        except ParseError as error:
            typed = str(error).partition("'")[2].partition("'")[0]
            within = None if str(error).startswith("No idea") and not typed.startswith("-") else error.context
            known = within.flags if within else self.collection.task_names
            hint = f"./goldsmith {f'{within.name} --help' if within else '--list'} shows what there is"
            lacks = str(error).startswith("'")  # a word without a flag, which its own flag would not be
            if closest(typed, known) and not lacks:  # all names would be more than a reader wants
                hint = nearest(typed, known)
            said = re.sub(r"^Flag <Argument: ([\w-]+).*> needed value and .*", r"--\1 needs a value", str(error))
            raise ParseError(visible(f"{said}\n  hint: {hint}"), error.context) from None
        except ValueError as error:  # what Invoke makes a number of
            raise ParseError(visible(f"not a whole number: {str(error).rpartition(': ')[2]}"), None) from None

    def print_task_help(self, name: str) -> None:
        """Invoke's own, with the words that stand without a flag, and folded."""
        context = self.parser.contexts[name]
        unflagged, several = next(iter(context.args.values()), None), bool(self.collection[name].iterable)
        for one in context.args.values():  # of a flag that may be repeated Invoke does not say that it takes a value
            one.kind = str if one.kind is list else one.kind
        words = [one.name.upper() for one in context.positional_args]
        words = [f"{words[0]}…"] if len(words) == 1 else words
        if name in UNFLAGGED and unflagged:
            words = [f"[{unflagged.name.upper()}]{'…' if several else ''}"]
        told = (inspect.getdoc(self.collection[name]) or "").split("\n\n")
        usage = " ".join([self.binary, name, *words, "[--options]"])
        parts = [f"Usage: {usage}", *(textwrap.fill(one, 80) for one in told)]
        options = context.help_tuples()
        sys.stdout.write("\n\n".join([*parts, *(["Options:"] if options else [])]) + "\n")
        if options:
            self.print_columns(options)

    def print_version(self) -> None:
        import tomllib

        self.version = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())["project"]["version"]
        super().print_version()


UNFLAGGED = ("adopt", "policy.preview", "fleet.blast-radius", "network.check", "control.check")
"""Tasks whose first argument may be left out, and needs no flag."""


def _typed(arguments: Sequence[str]) -> list[str]:
    """A task's name and words as Invoke takes them, which knows no positionals that are repeated or may be left out.

    All names of a task that takes one become one word; those of UNFLAGGED get their flag.
    """
    name, words = next(iter(arguments), ""), arguments[1:]
    if name not in namespace.task_names:
        return [*arguments]
    meant = namespace[name]
    help_texts = dict(meant.help)  # which Invoke takes away where it is asked for the arguments
    known, meant.help = meant.get_arguments(), help_texts
    valued = {f"--{of}" if len(of) > 1 else f"-{of}" for one in known if one.takes_value for of in one.names}
    marked = [(word, word[:1] != "-" and before not in valued) for before, word in zip(["", *words], words)]  # noqa: B905
    names, others = ([word for word, bare in marked if bare is wanted] for wanted in (True, False))
    if name in UNFLAGGED:
        most = len(names) if meant.iterable else 1
        names = [*(f"--{known[0].name}={one}" for one in names[:most]), *names[most:]]
    elif len(meant.positional or ()) == 1:
        names = ["\n".join(names)] if names else []
    else:
        return [*arguments]
    return [name, *names, *others]


RENAMED = {"policy.waivers": "waiver.list", "policy.export": "waiver.export"}


def main(*arguments: str) -> None:
    """Run the command line `arguments`; ends with SystemExit, unless the exit code is 0."""
    if arguments[:1] == ("test",) and arguments[1:] and not arguments[1].startswith("-"):
        arguments = ("test", "--path", *arguments[1:])  # Invoke has no argument that may be left out and needs no flag
    before = arguments[: arguments[:1] == ("setup",)]  # which the launcher lets go before most tasks
    name, words = next(iter(arguments[len(before) :]), ""), arguments[len(before) + 1 :]
    if "--help" in words and not name.startswith("-"):  # after a task Invoke takes it for the value of a positional
        arguments = ("--help", RENAMED.get(name, name))
    elif name:
        arguments = (*before, *_typed([RENAMED.get(name, name), *words]))
    try:
        try:
            _Program(namespace=namespace, name="Goldsmith", binary="./goldsmith", config_class=_Config).run(
                ["./goldsmith", *arguments]
            )
        finally:
            if sys.stdout is not None:  # as it is where who started us has closed it
                sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as `head`, has enough; what is still to be written goes nowhere
        if sys.stdout is None or not _is_left(sys.stdout.fileno()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except SystemExit as end:  # Invoke makes status 1 of Ctrl-C, and says nothing
        if end.code == 1 and isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise


def _is_left(pipe: int) -> bool:
    """Whether the reader of a pipe has closed it."""
    left = select.poll()
    left.register(pipe, 0)
    return any(event & select.POLLERR for _, event in left.poll(0))


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].endswith(".list"):
        gc.disable()  # a tenth of a listing's time, for the little that it leaves behind
    main(*sys.argv[1:])
