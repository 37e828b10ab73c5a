"""What instance types support, as DescribeInstanceTypes says it, and what an image asks of them.

Sources: the EC2 User Guide, "Instance launch behavior with Amazon EC2 boot modes", "Requirements for using NitroTPM",
"Enhanced networking with ENA"; the API reference of DescribeInstanceTypes.
"""

from __future__ import annotations

from typing import Any

from tests.strict_aws.errors import AwsError, bad_value


def named(kind: str) -> dict[str, Any]:
    """A type as moto's recorded list of them has it; empty for one that is not in it."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return dict(INSTANCE_TYPES.get(kind) or {})


def of(instance: Any) -> dict[str, Any]:
    """The type of an instance; empty where its launch named none, of which nothing is checked."""
    return named(instance.instance_type) if getattr(instance, "typed", True) else {}


def boots(image: dict[str, Any], kind: dict[str, Any]) -> str:
    """How an instance of that type boots from an image: uefi-preferred falls back, nothing said is the type's own."""
    said = image.get("BootMode")
    if said == "uefi-preferred":
        return "uefi" if "uefi" in kind.get("SupportedBootModes", ["uefi"]) else "legacy-bios"
    return str(said or ("uefi" if image.get("Architecture") == "arm64" else "legacy-bios"))


def check_mode(image: dict[str, Any], kind: dict[str, Any]) -> None:
    """Raise AwsError where the type does not support the image's boot mode."""
    if kind and (mode := boots(image, kind)) not in kind["SupportedBootModes"]:
        raise AwsError("UnsupportedOperation", f"{kind['InstanceType']} does not support the boot mode {mode}")


def check(image: dict[str, Any], kind: dict[str, Any]) -> None:
    """Raise AwsError where an instance of that type cannot start from the image."""
    if not kind:
        return
    name, has = kind["InstanceType"], kind["ProcessorInfo"]["SupportedArchitectures"]
    if image["Architecture"] not in has:
        raise bad_value(
            f"The architecture '{','.join(has)}' of the specified instance type does not match the architecture "
            f"'{image['Architecture']}' of the specified AMI."
        )
    check_mode(image, kind)
    if kind["NetworkInfo"]["EnaSupport"] == "required" and not image.get("EnaSupport"):
        said = f"Enhanced networking with the Elastic Network Adapter (ENA) is required for the '{name}' instance type."
        raise AwsError("InvalidParameterCombination", said)
    if image.get("TpmSupport") and kind["NitroTpmSupport"] != "supported":
        raise AwsError("UnsupportedOperation", f"{name} does not support NitroTPM")


def equip(instance: Any, image: dict[str, Any]) -> None:
    """Give an instance what it has from its image and its type at its launch."""
    instance.boot_mode = image.get("BootMode")
    instance.current_instance_boot_mode = boots(image, of(instance))
    instance.tpm_support, instance.ena_support = image.get("TpmSupport"), bool(image.get("EnaSupport"))
    instance.product_codes = list(image.get("ProductCodes", []))
    if (kind := of(instance)) and not getattr(instance, "cpu_options", None):
        cores = kind["VCpuInfo"]
        instance.cpu_options = {"CoreCount": cores["DefaultCores"], "ThreadsPerCore": cores["DefaultThreadsPerCore"]}
