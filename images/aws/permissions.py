"""Which permissions each task needs, as IAM policies name them. A test holds this against the calls really made. Pure.

`IMPLIED` are not asked for by us: the services use the keys in our name, so that whoever publishes needs them too.
"""

from __future__ import annotations

LOOK = frozenset({"ec2:DescribeImages", "ssm:GetParameter"})
READ = LOOK | {"kms:GetPublicKey"}
USES = frozenset(
    {
        "ec2:DescribeInstances",
        "ec2:DescribeLaunchTemplates",
        "ec2:DescribeLaunchTemplateVersions",
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeLaunchConfigurations",
        "ssm:DescribeParameters",
        "ssm:GetParameters",
    }
)
CHANNELS = frozenset({"ssm:PutParameter"})
REMOVE = frozenset({"ec2:DeregisterImage", "ec2:DeleteSnapshot"})

TASKS: dict[str, frozenset[str]] = {
    "image.publish": READ
    | CHANNELS
    | REMOVE
    | {
        "sts:GetCallerIdentity",
        "kms:DescribeKey",
        "kms:Sign",
        "ec2:GetEbsEncryptionByDefault",
        "ec2:GetImageBlockPublicAccessState",
        "ec2:GetSnapshotBlockPublicAccessState",
        "ec2:DescribeSnapshots",
        "ebs:StartSnapshot",
        "ebs:PutSnapshotBlock",
        "ebs:CompleteSnapshot",
        "ec2:RegisterImage",
        "ec2:CopyImage",
        "ec2:CreateTags",
        "ec2:DeleteTags",
        "ec2:EnableImageDeprecation",
        "ec2:ModifyImageAttribute",
        "ec2:ModifySnapshotAttribute",
        "ec2:DescribeImageAttribute",
        "ec2:DescribeSnapshotAttribute",
    },
    "image.promote": READ | CHANNELS,
    "image.rollback": LOOK | CHANNELS,
    "image.revoke": LOOK | CHANNELS | {"ec2:CreateTags", "ec2:EnableImageDeprecation"},
    "image.show": READ,
    "image.rebuild": READ | {"ec2:DescribeSnapshots"},
    "image.prune": USES
    | REMOVE
    | {
        "ec2:DescribeImages",
        "ec2:CreateTags",
        "ec2:EnableImageDeprecation",
        "ec2:DisableImage",
        "ssm:DeleteParameters",
    },
    "image.reap": USES
    | REMOVE
    | {
        "ec2:DescribeImages",
        "ec2:DescribeSnapshots",
        "ec2:DescribeVolumes",
    },
}

IMPLIED = frozenset(
    {"kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*", "ec2:CopySnapshot", "sts:AssumeRole"}
)
