"""The keys of this installation: made once, their owner's alone, rotated without signing old releases again."""

from __future__ import annotations

import os
import stat
from datetime import date, timedelta
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.settings import Settings, Signing
from images.trust.envelope import read_bundle, verifier
from images.trust.keys import FileSigner, ProgramSigner, make, own_keys, pem_of, rotate, signer
from tests.strict_aws import StrictAws
from tests.support.cloud import settings_at
from tests.support.publishing import settings_in
from tests.support.signing import KeyInMemory, signed

DAY = date(2026, 11, 27)
NEXT = DAY + timedelta(days=40)


def test_a_key_pair_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    """Nothing is trusted before, and its first day is not asked for."""
    settings = settings_in(tmp_path)
    assert own_keys(settings) == ()
    file = make(settings, DAY)
    assert make(settings, NEXT) == file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    [key] = own_keys(settings)
    assert (key.since, key.until) == (date.min, date.max)
    assert key.public == pem_of(signer(settings, DAY).public).strip()
    assert "PRIVATE" not in key.public


def test_after_a_rotation_both_keys_count_on_their_days_and_only_the_new_one_signs(tmp_path: Path) -> None:
    """The private half of the old one is gone."""
    settings = settings_in(tmp_path)
    old = make(settings, DAY)
    before, now = rotate(settings, NEXT)
    assert (before.until, now.since, now.until) == (NEXT, NEXT, date.max)
    assert not old.exists()
    assert now.public == pem_of(signer(settings, NEXT).public).strip()
    assert before.public != now.public


def test_keys_of_one_day_and_of_a_clock_that_went_back_are_in_the_order_of_their_making(tmp_path: Path) -> None:
    """Whatever their hashes are: the last one signs and has no end."""
    settings = settings_in(tmp_path)
    made = [make(settings, DAY)]
    for day in (DAY, DAY, DAY, DAY, DAY - timedelta(days=2), NEXT):
        keys = rotate(settings, day)
        made.append(make(settings, day))
        assert [key.name for key in keys] == [file.stem for file in made]
        assert keys[-1].public == pem_of(signer(settings, day).public).strip()
        assert [key.until == date.max for key in keys] == [False] * (len(keys) - 1) + [True]


def test_what_a_key_signs_its_public_half_verifies(tmp_path: Path) -> None:
    """And no other one's."""
    ours, other = FileSigner(make(settings_in(tmp_path), DAY)), KeyInMemory()
    opened = read_bundle(signed(ours, "a/type", f"sha256:{'a' * 64}"), "it")
    assert opened.is_signed_by(verifier(ours.public))
    assert not opened.is_signed_by(verifier(other.public))


def test_a_key_that_others_may_read_signs_nothing(tmp_path: Path) -> None:
    """Whoever could read it may have it."""
    file = make(settings_in(tmp_path), DAY)
    file.chmod(0o640)
    with pytest.raises(RefusedError, match="accessible to others"):
        FileSigner(file).sign(b"x")
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(OutsideError, match="holds no private key"):
        FileSigner(file).sign(b"x")


def program(folder: Path, body: str) -> tuple[str, ...]:
    """A program of this test."""
    file = folder / "signs"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o700)
    return (str(file),)


@pytest.mark.needs("openssl")
def test_a_program_of_ones_own_signs(tmp_path: Path) -> None:
    """It gets what is signed on its input, and the key is rotated where it is."""
    key = make(settings_in(tmp_path / "vault"), DAY)
    public = key.with_suffix(".pub")
    command = program(tmp_path, f"base64 -d | openssl dgst -sha256 -sign {key} | base64")
    settings = Settings(state=tmp_path / "state", signing=Signing(command=command, public_key=public))
    ours = signer(settings, DAY)
    assert read_bundle(signed(ours, "a/type", f"sha256:{'a' * 64}"), "it").is_signed_by(verifier(ours.public))
    assert [one.public for one in own_keys(settings)] == [public.read_text().strip()]
    with pytest.raises(RefusedError, match="not kept here"):
        rotate(settings, DAY)
    assert not (tmp_path / "state/keys").exists()


def test_a_program_that_answers_nonsense_and_a_key_that_is_missing_are_told(tmp_path: Path) -> None:
    """Nothing is signed then."""
    with pytest.raises(OutsideError, match="no signature in base64"):
        ProgramSigner(program(tmp_path, "echo '%'"), b"").sign(b"x")
    with pytest.raises(ContentError, match=r"signing\.public_key"):
        signer(Settings(state=tmp_path, signing=Signing(command=("true",))), DAY)
    with pytest.raises(ValueError, match="awskms:arn"):
        Signing(key="arn:aws:kms:eu-central-1:123456789012:key/1")


@pytest.mark.parametrize("steps", range(6))
def test_a_rotation_killed_at_any_step_leaves_the_old_keys_or_the_new_ones(tmp_path: Path, steps: int) -> None:
    """What signs is the key that has no end; the next rotation clears what was left."""
    settings = settings_in(tmp_path)
    old = make(settings, DAY)
    folder, before = old.parent, own_keys(settings)
    private = make(settings_in(tmp_path / "other"), NEXT)
    [new] = own_keys(settings_in(tmp_path / "other"))
    name = private.stem.replace("-0001-", "-0002-")
    pem = private.with_suffix(".pub").read_bytes()
    making, making_public = folder / f".{name}.new", folder / f".{name}.pub.new"
    if steps >= 1:
        making.write_bytes(private.read_bytes() if steps > 1 else os.urandom(10))
        making.chmod(0o600)
    if steps >= 2:
        making_public.write_bytes(pem if steps > 2 else b"")
    if steps >= 3:
        making_public.rename(folder / f"{name}.pub")
    if steps >= 4:
        making.rename(folder / f"{name}.key")
    if steps >= 5:
        old.unlink()
    keys = own_keys(settings)
    if steps < 4:
        assert keys == before
    else:
        assert [(key.public, key.until) for key in keys] == [(before[0].public, NEXT), (new.public, date.max)]
    assert pem_of(signer(settings, NEXT).public).strip() == keys[-1].public
    assert len(rotate(settings, NEXT)) == len(keys) + 1
    assert len(list(folder.iterdir())) == len(keys) + 2
    assert pem_of(signer(settings, NEXT).public).strip() == own_keys(settings)[-1].public


def test_a_public_half_that_is_none_is_told_by_its_name(tmp_path: Path) -> None:
    """It was damaged by somebody else; nothing is verified without it."""
    settings = settings_in(tmp_path)
    file = make(settings, DAY).with_suffix(".pub")
    file.write_text("")
    with pytest.raises(ContentError) as caught:
        own_keys(settings)
    assert str(file) in str(caught.value)


def test_a_key_of_kms_signs_and_its_public_half_verifies(aws: StrictAws, tmp_path: Path) -> None:
    """Only a digest is sent there; a key of another kind is refused by the setting's name."""
    kms = aws.client("kms")

    def settings(spec: str) -> Settings:
        arn = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
        return settings_at(aws, tmp_path).model_copy(update={"signing": Signing(key=f"awskms:{arn}")})

    ours = settings("ECC_NIST_P256")
    opened = read_bundle(signed(signer(ours, DAY), "a/type", f"sha256:{'a' * 64}"), "it")
    [key] = own_keys(ours)
    assert opened.is_signed_by(verifier(signer(ours, DAY).public))
    assert pem_of(signer(ours, DAY).public).strip() == key.public
    with pytest.raises(ContentError, match=r"signing\.key"):
        own_keys(settings("ECC_NIST_P384"))
