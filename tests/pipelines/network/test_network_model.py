"""Networks load strictly, and say who may talk to whom."""

from __future__ import annotations

from datetime import date

import pytest

from hardening.foundation.errors import ContentError
from pipelines.network.model import overdue, overdue_text
from tests.pipelines.network.sample import HEAD, SHOP, Endpoint, allows, network

WEB, DB, OFFICE = Endpoint("web", "10.1.0.5"), Endpoint("db", "10.2.0.5"), Endpoint("", "10.9.0.5")
MAY_BE = "may be of the role web too"
STRANGER = Endpoint("", "203.0.113.5")


def test_only_what_a_rule_names_is_allowed() -> None:
    """By role, by range and by port; nothing goes back, and nothing else goes out."""
    shop = network(SHOP)
    asked = {
        (source, target, port)
        for source in (WEB, DB, OFFICE, STRANGER)
        for target in (WEB, DB, OFFICE, STRANGER)
        for port in (22, 443, 5432, 9102)
        if (source.role or target.role) and allows(shop, source, target, "tcp", port)
    }
    assert asked == {
        (OFFICE, WEB, 443), (STRANGER, WEB, 443),
        (WEB, DB, 5432), (OFFICE, DB, 5432), (OFFICE, DB, 9102),
    }  # fmt: skip
    assert not allows(shop, WEB, DB, "udp", 5432)


def test_a_member_without_an_address_is_in_no_range() -> None:
    """A container is known by its role alone."""
    shop = network(SHOP)
    assert allows(shop, Endpoint("web"), Endpoint("db"), "tcp", 5432)
    assert not allows(shop, Endpoint(""), Endpoint("db"), "tcp", 5432)


def test_a_role_that_asks_freely_is_let_in_nowhere_for_it() -> None:
    """`outgoing = "any"` opens what is outside, never another role."""
    shop = network(SHOP.replace('what = "web servers"', 'what = "web servers"\noutgoing = "any"'))
    assert allows(shop, WEB, STRANGER, "tcp", 25)
    assert not allows(shop, WEB, DB, "tcp", 22)


def test_a_range_opens_no_role_that_lies_in_it() -> None:
    """Both ends have a say: the database is asked by nobody but whom a rule to it names."""
    more = HEAD + '[[rules]]\nfrom = "web"\nto = "10.0.0.0/8"\nports = ["22/tcp"]\nreason = "r"\n'
    assert not allows(network(SHOP, more), WEB, DB, "tcp", 22)
    assert allows(network(SHOP, more), WEB, OFFICE, "tcp", 22)


def test_roles_of_one_file_stand_in_rules_of_another() -> None:
    """As the teams that own them write them."""
    more = HEAD + '[[rules]]\nfrom = "db"\nto = "web"\nports = ["8080/tcp"]\nreason = "r"\n'
    assert allows(network(SHOP, more), DB, WEB, "tcp", 8080)


def test_what_is_due_for_review_is_told_with_its_owner() -> None:
    """A rule has its file's day, or its own."""
    shop = network(SHOP)
    (found,) = overdue(shop, date(2026, 7, 2))
    assert overdue_text(*found) == (
        "network/0.toml: rules[2]: 10.9.0.0/24 → db had to be reviewed by 2026-06-30, 2 days ago (shop)"
    )
    assert not [*overdue(shop, date(2026, 6, 30))]
    assert len([*overdue(shop, date(2027, 6, 1))]) == 3


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('to = "db"', 'to = "dbb"', "network/0.toml: rules[1].to: unknown role: dbb"),
        ('from = "world"\nto = "web"', 'from = "world"\nto = "10.8.0.0/24"', "rules[0]: names no role"),
        ('"10.2.0.0/24"', '"10.1.0.128/25"', "roles.db.addresses: 10.1.0.128/25 is of the role web too"),
        ('part = "db"', 'part = "web"', f"roles.db.containers: a container with app=shop, part=web {MAY_BE}"),
        ('app = "shop", part = "db"', 'app = "shop"', f"roles.db.containers: a container with app=shop {MAY_BE}"),
        ('app = "shop", part = "db"', 'tier = "data"', f"roles.db.containers: a container with tier=data {MAY_BE}"),
        ('labels = { app = "db" }', 'labels = { app = "web" }', f"roles.db.pods: a pod of shop with app=web {MAY_BE}"),
        ('labels = { app = "db" }', 'labels = { x = "y" }', f"roles.db.pods: a pod of shop with x=y {MAY_BE}"),
        ('labels = { app = "db" }', 'labels = {}', f"roles.db.pods: a pod of shop with any labels {MAY_BE}"),
        ("[roles.db]", "[roles.world]", "roles.world: \"world\" stands for every address"),
        ("[roles.db]", "[roles.outside]", "\"outside\" is a name that is made for policies and"),
        ("[roles.db]", "[roles.default-deny]", "roles.default-deny: "),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(old: str, new: str, error: str) -> None:
    """With file and key, so that it is found."""
    with pytest.raises(ContentError) as caught:
        network(SHOP.replace(old, new, 1))
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('"10.9.0.0/24"', '"10.9.0.1/24"', "rules[2].from: must be a range of addresses such as 10.1.0.0/16"),
        ('"10.9.0.0/24"', '"0.0.0.0/0"', 'rules[2].from: 0.0.0.0/0 is every address'),
        ('"443/tcp"', '"443"', 'rules[0].ports[0]: must be a port or several with a protocol, as "443/tcp"'),
        ('"9100-9104/tcp"', '"9104-9100/tcp"', "rules[2].ports[1]: 9104-9100/tcp: ports go from 1 to 65535"),
        ('"443/tcp"', '"0/tcp"', "ports go from 1 to 65535"),
        ('"443/tcp"', '"70000/tcp"', "ports go from 1 to 65535"),
        ('reason = "customers"', "", "rules[0].reason: required, but missing"),
        ('owner = "shop"', "", "owner: required, but missing"),
        ("review_by = 2027-05-31", "", "review_by: required, but missing"),
        ('to = "web"', 'too = "web"', "rules[0].too: unknown key"),
        ("[roles.web]", '[roles."W b"]', "a name of small letters"),
        ('namespace = "shop"', 'namespace = "Sho_p"', "a namespace of Kubernetes"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused(old: str, new: str, error: str) -> None:
    """Before anything is made of it."""
    with pytest.raises(ContentError) as caught:
        network(SHOP.replace(old, new, 1))
    assert error in str(caught.value)


def test_labels_that_no_member_can_have_both_tell_roles_apart() -> None:
    """One key with two values is enough, and so are two namespaces."""
    apart = SHOP.replace('{ app = "shop", part = "db" }', '{ part = "db", tier = "data" }')
    assert network(apart.replace('namespace = "shop", labels = { app = "db" }', 'namespace = "data", labels = {}'))


def test_a_role_stands_once() -> None:
    """In two files it would mean two things."""
    with pytest.raises(ContentError, match=r"the role is already defined in network/0\.toml"):
        network(SHOP, HEAD + '[roles.web]\nwhat = "w"\n')
    group = '\nsecurity_groups = [{ id = "sg-12345678", region = "eu-central-1" }]'
    with pytest.raises(ContentError, match="sg-12345678 is of the role web too"):
        network(SHOP.replace('what = "web servers"', f'what = "w"{group}').replace('"the database"', f'"d"{group}'))
    named = group.replace(" }", ', account = "123456789012" }')
    with pytest.raises(ContentError, match="sg-12345678 is of the role web too"):
        network(SHOP.replace('what = "web servers"', f'what = "w"{group}').replace('"the database"', f'"d"{named}'))


def test_an_empty_file_says_nothing_and_is_refused() -> None:
    """It was meant to hold something."""
    with pytest.raises(ContentError, match=r"neither \[roles.NAME\] nor \[\[rules\]\]"):
        network(HEAD)
