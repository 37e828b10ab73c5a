"""A release's dates come from its definition and its day, and survive being written as annotations."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hardening.foundation.errors import ContentError
from images.artifact import Release
from images.model import Lifecycle
from images.release.lifecycle import (
    Status,
    annotations,
    based,
    dated_tag,
    dates,
    moment,
    near_expiry,
    newest_first,
    parse_annotations,
    status,
    timestamp,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
RELEASE = Release(
    name="web",
    repository="localhost/web",
    digest="sha256:abcdef0123",
    content="sha256:c1",
    input_digest="sha256:in1",
    profile="container-base",
    policy="default",
    published_at=NOW,
    warn_at=NOW + 23 * DAY,
    expires_at=NOW + 30 * DAY,
)
BOUNDS = datetime(2000, 1, 1), datetime(2100, 1, 1)  # noqa: DTZ001, hypothesis adds the zone
moments = some.datetimes(*BOUNDS, timezones=some.just(UTC)).map(lambda at: at.replace(microsecond=0))
texts = some.text(min_size=1)
releases = some.builds(
    Release,
    name=texts,
    repository=texts,
    digest=texts,
    content=texts,
    input_digest=some.text(),
    profile=some.text(),
    policy=some.text(),
    published_at=moments,
    warn_at=moments,
    expires_at=moments,
    base_name=some.text(),
    base_digest=some.text(),
)


@given(releases, some.from_regex(r"[a-z.]{1,20}\.", fullmatch=True))
def test_what_is_written_as_annotations_is_read_back(release: Release, prefix: str) -> None:
    """The codec loses nothing, under any prefix."""
    found = parse_annotations(
        annotations(release, prefix),
        prefix,
        repository=release.repository,
        digest=release.digest,
        content=release.content,
    )
    assert found == release


def test_the_annotations_are_the_ones_other_tools_know() -> None:
    """Standard keys where there are some, our own prefix for the rest, and nothing empty."""
    assert annotations(replace(RELEASE, base_name="debian-base", base_digest="sha256:b"), "x.") == {
        "org.opencontainers.image.title": "web",
        "org.opencontainers.image.created": "2026-11-25T12:00:00Z",
        "org.opencontainers.image.base.name": "debian-base",
        "org.opencontainers.image.base.digest": "sha256:b",
        "x.warn-at": "2026-12-18T12:00:00Z",
        "x.expires-at": "2026-12-25T12:00:00Z",
        "x.input-digest": "sha256:in1",
        "x.profile": "container-base",
        "x.policy": "default",
    }
    assert "org.opencontainers.image.base.name" not in annotations(RELEASE, "x.")


@pytest.mark.parametrize("broken", [{}, {"x.expires-at": "soon"}, {"x.expires-at": "2026-12-25T12:00:00"}])
def test_an_index_without_our_dates_is_no_release(broken: dict[str, str]) -> None:
    """Missing, unreadable and zoneless dates are refused: an unknown date is never a long life."""
    found = annotations(RELEASE, "x.") | broken if broken else {}
    with pytest.raises(ContentError, match="not a release of ours"):
        parse_annotations(found, "x.", repository="r", digest="d", content="c")


def test_dates_are_counted_from_the_publication_in_whole_seconds() -> None:
    """Thirty days of life and a warning seven days before, whatever the zone of the clock."""
    found = dates(Lifecycle(), NOW.replace(microsecond=7))
    assert (found.published_at, found.warn_at, found.expires_at) == (NOW, NOW + 23 * DAY, NOW + 30 * DAY)


def test_support_caps_the_expiry_and_the_warning_follows_it() -> None:
    """A release lives through the last day of support and no longer; its warning begins no earlier than it does."""
    found = dates(Lifecycle(support_until=date(2026, 11, 28)), NOW)
    assert found.expires_at == datetime(2026, 11, 29, tzinfo=UTC)
    assert found.warn_at == NOW


@given(moments, some.integers(1, 400), some.integers(0, 400), some.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_dates_stand_in_order(at: datetime, life: int, warn: int, support: date) -> None:
    """The warning never stands before the publication, nor the expiry after the end of support."""
    lifecycle = Lifecycle(expires_after=life * DAY, warn_before=warn * DAY, support_until=support)
    found = dates(lifecycle, at)
    assert found.published_at <= found.warn_at
    assert found.expires_at <= found.published_at + life * DAY
    assert found.expires_at.date() <= support + DAY


def test_a_release_ages_from_current_over_warn_to_expired_unless_it_is_revoked() -> None:
    """The limits belong to the later state: at the second of its expiry a release has expired."""
    second = timedelta(seconds=1)
    assert status(RELEASE, RELEASE.warn_at - second) is Status.CURRENT
    assert status(RELEASE, RELEASE.warn_at) is Status.WARN
    assert status(RELEASE, RELEASE.expires_at - second) is Status.WARN
    assert status(RELEASE, RELEASE.expires_at) is Status.EXPIRED
    assert status(replace(RELEASE, revoked_at=NOW), NOW) is Status.REVOKED
    assert [near_expiry(RELEASE, at) for at in (RELEASE.warn_at - second, RELEASE.warn_at)] == [False, True]


@given(moments)
def test_a_moment_survives_being_written(at: datetime) -> None:
    """Timestamps are RFC 3339 in UTC."""
    assert moment(timestamp(at)) == at


def test_the_dated_tag_names_the_day_and_the_digest() -> None:
    """Two releases of one day differ by their digest."""
    assert dated_tag(RELEASE) == "20261125-abcdef"


def test_the_newest_release_comes_first_and_digests_decide_within_a_day() -> None:
    """Whatever order they come in."""
    later, other = replace(RELEASE, published_at=NOW + DAY), replace(RELEASE, digest="sha256:b")
    for given_order in ([RELEASE, later, other], [other, later, RELEASE]):
        assert newest_first(given_order) == (later, other, RELEASE)


@pytest.mark.parametrize("content", [{}, {"annotations": None}, {"annotations": {"other": "x"}}])
def test_a_manifest_that_names_no_base_gives_the_draft_none(content: dict[str, object]) -> None:
    """Not every builder annotates."""
    assert based(RELEASE, content) == RELEASE


def test_a_draft_takes_its_base_from_the_manifest() -> None:
    """Under the key that OCI names."""
    content = {"annotations": {"org.opencontainers.image.base.digest": "sha256:b1"}}
    assert based(RELEASE, content) == replace(RELEASE, base_digest="sha256:b1")


def test_dates_are_told_in_utc_whatever_zone_they_come_in() -> None:
    """Vienna is an hour ahead in November."""
    vienna = NOW.astimezone(timezone(timedelta(hours=1)))
    assert dates(Lifecycle(), vienna) == dates(Lifecycle(), NOW)
    assert dates(Lifecycle(), vienna).published_at.tzinfo is UTC
    assert timestamp(vienna) == "2026-11-25T12:00:00Z"


def test_a_moment_is_read_in_utc_and_one_without_a_zone_is_told() -> None:
    """A release that lacks its dates is told with the key that it lacks, and where that comes from."""
    assert moment("2026-11-25T13:00:00+01:00").tzinfo is UTC
    with pytest.raises(ValueError, match="2026-11-25T13:00:00 has no time zone"):
        moment("2026-11-25T13:00:00")
    with pytest.raises(ContentError) as refused:
        parse_annotations({}, "x.", repository="r", digest="d", content="c")
    assert refused.value.hint == (
        "releases have x.expires-at on their index; another annotation_prefix in goldsmith.toml?"
    )
