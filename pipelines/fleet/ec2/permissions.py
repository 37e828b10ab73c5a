"""Which permissions each task on EC2 fleets needs, as IAM policies name them; held against the calls by a test. Pure.

`IMPLIED` are not asked for by us: the services ask in our name, so that whoever rolls needs them too.
"""

from __future__ import annotations

SEE = frozenset(
    {
        "autoscaling:DescribeAutoScalingGroups",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceStatus",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeInstances",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeLaunchTemplates",
        "ec2:DescribeVolumes",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
    }
)
PROVE = frozenset({"ec2:DescribeImages", "kms:GetPublicKey", "ssm:GetParameter"})
KEEP = frozenset(
    {
        "ec2:CreateTags",
        "ec2:DeleteTags",
        "ec2:DescribeAddresses",
        "ec2:DescribeInstanceAttribute",
        "ec2:DescribeInstanceCreditSpecifications",
        "ec2:GetConsoleOutput",
        "ec2:ModifyInstanceAttribute",
        "elasticloadbalancing:DeregisterTargets",
        "elasticloadbalancing:RegisterTargets",
    }
)
ALARMS = frozenset({"cloudwatch:DescribeAlarms"})
MOVE = frozenset({"ec2:AttachVolume", "ec2:StartInstances", "ec2:StopInstances"})

ACTIONS: dict[str, frozenset[str]] = {
    "fleet.check": SEE | PROVE,
    "roll.start, a new instance": SEE
    | PROVE
    | KEEP
    | MOVE
    | ALARMS
    | {
        "ec2:AssociateAddress",
        "ec2:AttachNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DetachNetworkInterface",
        "ec2:DetachVolume",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
    },
    "roll.start, a new root volume": SEE
    | PROVE
    | KEEP
    | MOVE
    | ALARMS
    | {
        "ec2:CreateReplaceRootVolumeTask",
        "ec2:DeleteVolume",
        "ec2:DescribeReplaceRootVolumeTasks",
        "ec2:GetEbsEncryptionByDefault",
    },
    "roll.start, an Auto Scaling group": SEE
    | PROVE
    | {
        "autoscaling:CancelInstanceRefresh",
        "autoscaling:DescribeInstanceRefreshes",
        "autoscaling:RollbackInstanceRefresh",
        "autoscaling:StartInstanceRefresh",
        "autoscaling:UpdateAutoScalingGroup",
        "ec2:CreateLaunchTemplateVersion",
    },
    "roll.reap": frozenset(
        {
            "ec2:DeleteVolume",
            "ec2:DescribeInstances",
            "ec2:DescribeVolumes",
            "ec2:TerminateInstances",
        }
    ),
}

IMPLIED = frozenset({"iam:PassRole", "iam:CreateServiceLinkedRole", "kms:CreateGrant", "ec2:RunInstances"})
