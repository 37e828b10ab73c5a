"""A strict AWS on loopback: the moto server with true rules in front of it for what machine images need.

    with in_process() as aws:
        ec2 = aws.client("ec2", "eu-west-1")
        aws.faults(Fault("lost", operation="RegisterImage", times=1))

README.md beside this file says where moto lies and what is done about it.
"""

from tests.strict_aws.client import ACCOUNT, REGION, StrictAws
from tests.strict_aws.faults import Fault
from tests.strict_aws.server import in_process, subprocess

__all__ = ["ACCOUNT", "REGION", "Fault", "StrictAws", "in_process", "subprocess"]
