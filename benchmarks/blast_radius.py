"""The blast radius of 10,000 members, with 200 roles and 500 security groups: of all of them, and of one.

One process for each round, with one thread. Half of the members are containers on a hundred engines, each of which is
an instance; half are instances with profiles, in two security groups each. The facts are made in memory: the time is
that of the graph, of all reaches, and of the changes that are evaluated again; the memory is that of the process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

from measure import rounds

MEMBERS, ROLES, GROUPS, ENGINES = 10_000, 200, 500, 100
ACCOUNT, REGION = "123456789012", "eu-central-1"
MOST_SECONDS, MOST_MB = 5.0, 500.0
ONE = "--measure"
RIGHTS = (
    ("logs:PutLogEvents",), ("s3:GetObject", "s3:PutObject"), ("dynamodb:*",), ("ssm:GetParameter", "kms:Decrypt"),
    ("sqs:ReceiveMessage",), ("sts:AssumeRole",), ("iam:PassRole", "lambda:CreateFunction", "lambda:InvokeFunction"),
    ("ecs:*", "iam:PassRole"),
)  # fmt: skip
SERVICES = ("ec2", "lambda", "ecs-tasks", "ec2")


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    found = [apart() for _ in range(rounds(3, __doc__ or ""))]
    for name in found[0]:
        print(f"{name:22}{median(one[name] for one in found):12,.2f}")
    print(f"load {os.getloadavg()[0]:.1f}")
    claims = (
        (f"seconds, {MEMBERS:,} members, {ROLES} roles, {GROUPS} security groups",
         median(one["all"] for one in found), MOST_SECONDS),
        ("MB of the process", median(one["mb"] for one in found), MOST_MB),
    )  # fmt: skip
    for text, value, most in claims:
        print(f"{'holds' if value <= most else 'FAILS':6} {text}: {value:.2f}, at most {most:.2f}")
    return int(any(value > most for _, value, most in claims))


def apart() -> dict[str, float]:
    """One measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, ONE], check=True, capture_output=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def role(number: int) -> dict[str, Any]:
    """A role as IAM shows it: narrow but for every tenth; the last may do everything."""
    wide = number % 10 == 0
    at = "*" if wide else f"arn:aws:iam::{ACCOUNT}:role/role-{number + 1}"
    actions = ("*",) if number == ROLES - 1 else RIGHTS[number % len(RIGHTS)]
    of_roles = any(one.startswith(("iam:", "sts:", "*")) for one in actions)
    data = "*" if of_roles or wide else f"arn:aws:*:::shop-{number}/*"
    places = {one: at if one.startswith(("iam:", "sts:")) else data for one in actions}
    statements = [{"Effect": "Allow", "Action": one, "Resource": place} for one, place in places.items()]
    service = SERVICES[number % len(SERVICES)]
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{service}.amazonaws.com"}}
    return {
        "Arn": f"arn:aws:iam::{ACCOUNT}:role/role-{number}", "Path": "/",
        "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
        "RolePolicyList": [{"PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}],
        "InstanceProfileList": [{"InstanceProfileName": f"role-{number}"}] if service == "ec2" else [],
    }  # fmt: skip


def world() -> Any:
    """All facts."""
    from hardening.runtime import ContainerFacts, InstanceFacts, SecurityGroup
    from pipelines.blast_radius.account import read_account
    from pipelines.blast_radius.gathering import load_ways
    from pipelines.blast_radius.member_steps import FleetMember
    from pipelines.blast_radius.radius import KnownFacts

    groups = [
        SecurityGroup(f"sg-{n}", f"g{n}", (f"tcp 443 from sg-{n * 7 % GROUPS}", f"tcp 5432 from sg-{n * 3 % GROUPS}",
                                           *(("tcp 22 from 10.0.0.0/8",) if n % 50 == 0 else ())))
        for n in range(GROUPS)
    ]  # fmt: skip
    half = MEMBERS // 2
    members = [
        FleetMember(
            "vm", f"i-{n}", "ami", "debian-server", "", account=ACCOUNT, region=REGION, instance=f"i-{n}",
            facts=InstanceFacts(profile=f"role-{n % ROLES}", groups=(groups[n % GROUPS], groups[n * 13 % GROUPS])),
        ) for n in range(half)
    ] + [
        FleetMember(
            "web", f"c-{n}", "web:1", "nginx", "", host=f"engine-{n % ENGINES}/local",
            facts=ContainerFacts(user="65532" if n % 3 else "0", privileged=n % 50 == 0, networks=(f"net-{n % 20}",),
                                 secrets=("TOKEN",) if n % 9 == 0 else ()),
        ) for n in range(half)
    ]  # fmt: skip
    account = read_account(ACCOUNT, {"RoleDetailList": [role(number) for number in range(ROLES)]})
    hosts = {f"engine-{n}/local": f"i-{n}" for n in range(ENGINES)}
    return KnownFacts(tuple(members), (account,), load_ways(), hosts)


def measured() -> dict[str, float]:
    """The graph, all reaches with the changes that shrink their sum, and one reach with its own."""
    from pipelines.blast_radius.radius import fleet_radius, radius

    known = world()
    began, spent = time.perf_counter(), time.process_time()
    edges = len(known.graph.edges)
    built = time.perf_counter()
    every = fleet_radius(known)
    compared = time.perf_counter()
    one = radius(known, ["member:web/c-0"])
    ended = time.perf_counter()
    assert every.cuts, "no change was found"
    assert one.cuts, "no change was found for one"
    return {
        "steps": edges, "graph": built - began, "all members": compared - built, "one member": ended - compared,
        "all": ended - began, "all, of CPU": time.process_time() - spent,
        "changes of all": len(every.cuts), "reached by one": len(one.reach.all),
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


if __name__ == "__main__":
    if ONE in sys.argv:
        print(json.dumps(measured()))
    else:
        sys.exit(main())
