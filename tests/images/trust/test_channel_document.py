"""A channel document is believed only while it is the newest one, of today, signed, and about this repository."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from hardening.foundation.hashing import canonical
from hardening.trust import Trust
from images.trust.channel_document import (
    CHANNELS_PREDICATE,
    MOVES_WITHIN,
    ChannelDocument,
    SignedChannel,
    UnreadChannelsError,
    require_current,
    require_tag,
    verified,
)
from images.trust.envelope import bundled, statement
from tests.support.publishing import DAY, NOW
from tests.support.signing import KeyInMemory

KEY = KeyInMemory()
TRUST = (Trust(keys=(KEY.trusted(),)),)
WHERE = "r.example/web"
OLD, NEW, OTHER = (f"sha256:{number:064x}" for number in (1, 2, 3))
DOCUMENT = ChannelDocument(
    repository=WHERE, version=7, issued=NOW, expires=NOW + 7 * DAY,
    channels={"stable": SignedChannel(digest=NEW, previous=OLD, left=OLD)},
).revoking([OTHER], NOW, "a hole")  # fmt: skip


def changed(**more: Any) -> ChannelDocument:
    return DOCUMENT.model_copy(update=more)


def test_what_was_signed_is_read_back() -> None:
    """Whole, and with revocations alone too."""
    for one in (DOCUMENT, changed(channels={}), changed(channels={}, revoked={})):
        assert verified(bundled(one.payload, KEY), WHERE, TRUST, (), NOW) == one


def forged(kind: str = CHANNELS_PREDICATE, **more: Any) -> bytes:
    """A statement that our key signed and that is no document of ours."""
    return bundled(statement(kind, DOCUMENT.predicate | more, {NEW: WHERE}), KEY)


FOREIGN = {
    "another key": (bundled(DOCUMENT.payload, KeyInMemory()), "unknown-key"),
    "another repository": (bundled(changed(repository="r.example/app").payload, KEY), "is that of r.example/app"),
    "another statement": (forged("https://slsa.dev/provenance/v1"), "unknown-key|missing"),
    "no digest": (forged(channels={"stable": {"digest": "x"}}), "malformed"),
    "a huge version": (forged(version=1 << 70), "malformed"),
    "no signature": (canonical({"mediaType": "application/json"}), "malformed"),
    "nothing": (b"", "malformed"),
}  # fmt: skip


@pytest.mark.parametrize(("bundle", "why"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_signed_about_this_repository_is_unread(bundle: bytes, why: str) -> None:
    """By one kind of error, which names the command that helps."""
    with pytest.raises(UnreadChannelsError, match=why) as caught:
        verified(bundle, WHERE, TRUST, (), NOW)
    assert "./goldsmith image.sign-channels web" in caught.value.hint


def test_every_policy_must_accept_the_key() -> None:
    """The floor as well as a fleet's own."""
    with pytest.raises(UnreadChannelsError, match="unknown-key"):
        verified(bundled(DOCUMENT.payload, KEY), WHERE, (*TRUST, Trust(keys=(KeyInMemory().trusted(),))), (), NOW)


def test_a_key_that_a_policy_names_counts_today_and_not_by_the_day_that_a_document_states() -> None:
    """A retired one can state any day; one of our own, of yesterday, has no private half any more."""
    retired = KEY.trusted(since=date(2020, 1, 1), until=NOW.date())
    bundle = bundled(DOCUMENT.payload, KEY)
    assert verified(bundle, WHERE, (Trust(keys=(retired,)),), (), NOW) == DOCUMENT
    assert verified(bundle, WHERE, (Trust(),), (retired,), NOW + DAY) == DOCUMENT
    with pytest.raises(UnreadChannelsError, match="which counts from"):
        verified(bundle, WHERE, (Trust(keys=(retired,)),), (), NOW + DAY)


def test_without_any_policy_no_key_counts() -> None:
    """Else no signature would be checked."""
    with pytest.raises(UnreadChannelsError, match="no policy says whose key counts"):
        verified(bundled(DOCUMENT.payload, KeyInMemory()), WHERE, (), (), NOW)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"expires": NOW + 91 * DAY}, "claims to count for more than 90 days"),
        ({"version": int((NOW + 8 * DAY).timestamp())}, "far above its day's"),
        ({"version": 1 << 61}, "far above its day's"),
    ],
)
def test_no_document_counts_for_ever_or_hides_all_later_ones(more: Any, why: str) -> None:
    """A version may be high where the last one was, as after a clock that was ahead."""
    bundle = bundled(changed(**more).payload, KEY)
    with pytest.raises(UnreadChannelsError, match=why):
        verified(bundle, WHERE, TRUST, (), NOW)
    if version := more.get("version"):
        assert verified(bundle, WHERE, TRUST, (), NOW, seen_version=version - 1).version == version


def test_a_lower_version_a_second_one_an_expired_one_and_one_to_come_are_unread() -> None:
    """And the same one is read again."""
    for found, seen, now, why in (
        (changed(version=6), DOCUMENT, NOW, "older than one that was seen: version 6, after 7"),
        (changed(revoked={}), DOCUMENT, NOW, "two documents have the version 7"),
        (DOCUMENT, None, NOW + 7 * DAY, r"expired on 2026-12-02 12:00 UTC"),
        (DOCUMENT, DOCUMENT, NOW + 7 * DAY, r"expired on 2026-12-02 12:00 UTC"),
        (DOCUMENT, None, NOW - 2 * DAY, "in the future"),
    ):
        with pytest.raises(UnreadChannelsError, match=why):
            require_current(found, seen, now, lasts=False)
    for found, seen, now in ((DOCUMENT, DOCUMENT, NOW), (DOCUMENT, changed(version=6), NOW + 6 * DAY)):
        require_current(found, seen, now, lasts=False)


def test_where_nobody_else_signs_what_was_seen_last_does_not_expire() -> None:
    """As in the embedded registry; what was not seen expires there too."""
    require_current(DOCUMENT, DOCUMENT, NOW + 70 * DAY, lasts=True)
    for seen in (None, changed(version=6)):
        with pytest.raises(UnreadChannelsError, match="expired"):
            require_current(DOCUMENT, seen, NOW + 70 * DAY, lasts=True)


@pytest.mark.parametrize(
    ("tagged", "after", "right"),
    [(NEW, DAY, True), ("", DAY, True), (OLD, NOW - NOW, True), (OLD, MOVES_WITHIN, False), (OTHER, NOW - NOW, False)],
)
def test_a_tag_names_what_its_document_does_or_is_on_its_way_there(tagged: str, after: timedelta, right: bool) -> None:
    """For a quarter of an hour it may still name what the channel left."""
    if right:
        require_tag(DOCUMENT, "stable", tagged, NOW + after)
        return
    with pytest.raises(UnreadChannelsError, match=f"stable points to {tagged[:19]}, and its signed document names"):
        require_tag(DOCUMENT, "stable", tagged, NOW + after)


def test_a_tag_of_a_channel_that_no_document_names_is_unread() -> None:
    """Such as `candidate` here."""
    with pytest.raises(UnreadChannelsError, match="has no such channel"):
        require_tag(DOCUMENT, "candidate", NEW, NOW)


def test_moves_and_revocations_change_what_they_say_and_nothing_else() -> None:
    """A repeated one changes nothing, and a revocation keeps its first reason."""
    moved = DOCUMENT.moved("candidate", OTHER)
    assert moved.channels == {**DOCUMENT.channels, "candidate": SignedChannel(digest=OTHER)}
    assert moved.moved("candidate", OTHER) == moved
    assert DOCUMENT.moved("stable", OLD, back=OTHER).channels["stable"] == SignedChannel(
        digest=OLD, previous=OTHER, left=NEW
    )
    again = DOCUMENT.revoking([OTHER, OLD], NOW + DAY, "another")
    assert {digest: one.reason for digest, one in again.revoked.items()} == {OTHER: "a hole", OLD: "another"}
    assert again.revoking([OTHER, OLD], NOW + 2 * DAY, "third") == again


def test_versions_only_grow_whatever_the_clock_says() -> None:
    """They follow it, so that a ledger that was lost with the document signs a higher one; one that went back does not
    make a lower one.
    """
    assert changed(version=0).signed(NOW, 7 * DAY, 0).version == int(NOW.timestamp())
    ahead = DOCUMENT.signed(NOW + 365 * DAY, 7 * DAY, DOCUMENT.version)
    assert ahead.signed(NOW, 7 * DAY, ahead.version).version == ahead.version + 1
