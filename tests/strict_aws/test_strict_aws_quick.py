"""What is made once, or more quickly, is what botocore, moto and xmltodict make."""

from __future__ import annotations

from typing import Any

import pytest
import xmltodict
from hypothesis import given
from hypothesis import strategies as st

from tests.strict_aws import StrictAws, quick

NAMES = st.sampled_from(["item", "name", "state", "value"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text("ab <>&'\"ä"))
ATTRIBUTES = st.dictionaries(st.sampled_from(["@xmlns", "@kind", "#text"]), st.text("ab <>&'\"ä\n"), max_size=2)
VALUES = st.recursive(
    st.one_of(LEAVES, ATTRIBUTES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)


@given(value=st.dictionaries(NAMES, VALUES, max_size=4), whole=st.booleans())
def test_answers_are_written_as_xmltodict_writes_them(value: dict[str, Any], whole: bool) -> None:
    """Escapes, attributes, lists, what is empty or absent."""
    given_ = {"Answer": value}
    assert quick.unparse(given_, full_document=whole) == xmltodict.unparse(
        given_, full_document=whole, short_empty_elements=True
    )


@pytest.mark.parametrize("name", ["a b", "<a", "a/"])
def test_what_is_no_name_of_an_element_is_not_written(name: str) -> None:
    """As xmltodict refuses it."""
    with pytest.raises(ValueError, match="name"):
        quick.unparse({"Answer": {name: "x"}})


def test_members_are_found_where_moto_finds_them(aws: StrictAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same of their possible names, and changed as moto changes them."""
    compared = 0

    def both(serializer: Any, value: Any, key: str, shape: Any) -> Any:
        nonlocal compared
        compared += 1
        found, usual = quick.picked(serializer, value, key, shape), moto_picks(serializer, value, key, shape)
        assert plain(found) == plain(usual), (value, key)
        return found

    from moto.core import serialize

    monkeypatch.setattr(serialize.ResponseSerializer, "get_value", both)
    ec2, balancers = aws.client("ec2"), aws.client("elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    ec2.create_network_interface(SubnetId=subnet)
    ec2.create_volume(AvailabilityZone="eu-central-1a", Size=5)
    ec2.create_key_pair(KeyName="key")
    ec2.describe_volumes()
    ec2.describe_network_interfaces()
    ec2.describe_security_groups()
    balancers.create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=vpc)
    balancers.describe_target_groups()
    assert compared > 200


def moto_picks(serializer: Any, value: Any, key: str, shape: Any) -> Any:
    from moto.core.serialize import AttributePickerContext, XFormedAttributePicker

    path = ".".join(serializer.path)
    picker = serializer._value_picker
    assert type(picker) is XFormedAttributePicker
    return picker(AttributePickerContext(value, key, shape, serializer.operation_model, key_path=path))


def plain(value: Any) -> Any:
    """A value to compare; of objects that are made again for each look, their class."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | dict) or value is None else type(value).__name__
