"""A login for a mirror stands in apt's auth.conf.d and nowhere else: not in addresses, images, plans or errors."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, GoldsmithError
from hardening.foundation.settings import Packages, Settings, load_settings
from images.model import Bootstrap
from images.packages import aptroot
from images.packages.index import PackageIndex
from tests.support.archive import Archive
from tests.support.hostile import Asked, Reply, hostile

TRIXIE = Bootstrap(family="debian", suite="trixie")
SECRET = "s3cret-of-the-mirror"
ADDRESS = f"https://user:{SECRET}@mirror.example.com/debian"


@pytest.fixture(autouse=True)
def own_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's /etc/apt of the test's own."""
    host = tmp_path / "host"
    (host / "sources.list.d").mkdir(parents=True)
    (host / "auth.conf.d").mkdir()
    monkeypatch.setattr(aptroot, "HOST", host)
    monkeypatch.setattr(aptroot, "_host_proxy", lambda: "")
    return host


def refused(call: object, *arguments: object) -> GoldsmithError:
    with pytest.raises(ContentError) as error:
        call(*arguments)  # type: ignore[operator]
    assert SECRET not in str(error.value)
    assert "auth.conf.d" in error.value.hint
    return error.value


@pytest.mark.parametrize("key", ["mirror", "security_mirror", "proxy"])
@pytest.mark.parametrize("address", [ADDRESS, f"http://{SECRET}@m.example.com", f"http:u:{SECRET}@m.example.com/x"])
def test_no_setting_holds_a_login(key: str, address: str, tmp_path: Path) -> None:
    """It is refused where it is read, and the error names the key but not the password."""
    (tmp_path / "goldsmith.toml").write_text(f'[packages]\n{key} = "{address}"\n')
    assert f"packages.{key}" in str(refused(load_settings, tmp_path / "goldsmith.toml"))


def test_no_variable_holds_a_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment neither."""
    monkeypatch.setenv("GOLDSMITH_PACKAGES__MIRROR", ADDRESS)
    assert "GOLDSMITH_PACKAGES__MIRROR" in str(refused(load_settings, tmp_path / "none.toml"))


@pytest.mark.parametrize(
    "address", ["http://m.example.com/a b", 'http://m/";\nDir "/x', "http://m/\nSuites: x", "-x", "m'x:"]
)
def test_an_address_is_one_word(address: str) -> None:
    """It becomes a line of apt's configuration and of its sources."""
    for key in ("mirror", "security_mirror", "proxy"):
        with pytest.raises(ValueError, match="address"):
            Packages(**{key: address})
    Packages(proxy="DIRECT", mirror="file:/srv/archive", security_mirror="http://[::1]:3142/deb/debian-security")


def test_a_suite_is_one_word_too() -> None:
    """It stands in the same lines, and takes nothing but the name of the release."""
    for wrong in ("x y", "x\nURIs: y", "{suite.__class__}", "{0}", ""):
        with pytest.raises(ValueError, match="suites"):
            Packages(suites=(wrong,))
    Packages(suites=("{suite}", "{suite}-updates", "./", "stable/updates", "trixie"))


def test_no_source_of_the_settings_holds_a_login(tmp_path: Path) -> None:
    """Of `extra_sources` the file is named."""
    extra = tmp_path / "extra.sources"
    extra.write_text(f"Types: deb\nURIs: {ADDRESS}\nSuites: trixie\nComponents: main\nSigned-By: /k.pgp\n")
    packages = Packages(mirror="https://mirror.example.com/debian", keyring=tmp_path / "k.pgp", extra_sources=(extra,))
    (tmp_path / "k.pgp").write_text("")
    error = refused(aptroot.sources_of, Settings(state=tmp_path, packages=packages), TRIXIE)
    assert str(extra) in str(error)


@pytest.mark.parametrize("name", ["sources.list.d/x.sources", "sources.list"])
def test_what_the_hosts_apt_holds_does_not_reach_an_image(name: str, own_host: Path, tmp_path: Path) -> None:
    """An address with a login that an image would take over is refused; one of another suite concerns nobody."""
    lines = f"deb [signed-by=/k.pgp] {ADDRESS} SUITE main\n"
    stanza = f"Types: deb\nURIs: {ADDRESS}\nSuites: SUITE\nComponents: main\nSigned-By: /k.pgp\n"
    text = lines if name == "sources.list" else stanza
    (own_host / name).write_text(text.replace("SUITE", "trixie"))
    settings = Settings(state=tmp_path / "state")
    aptroot._host_sources.cache_clear()
    for use in (aptroot.sources_text, aptroot.sources_of, aptroot.addresses):
        assert "mirror.example.com" in str(refused(use, settings, TRIXIE))
    (own_host / name).write_text(text.replace("SUITE", "sid"))
    aptroot._host_sources.cache_clear()
    with pytest.raises(ContentError, match="no archive is known"):
        aptroot.sources_text(settings, TRIXIE)
    aptroot._host_sources.cache_clear()


def test_a_login_in_the_hosts_proxy_is_refused() -> None:
    """apt-config's own words, as they would be handed on."""
    refused(aptroot.proxy_lines, f'Acquire::http::Proxy "http://u:{SECRET}@proxy.example.com:3128";\n')
    kept = aptroot.proxy_lines('Acquire::x "1";\nAcquire::http::Proxy "http://proxy.example.com:3128";\n')
    assert kept == 'Acquire::http::Proxy "http://proxy.example.com:3128";\n'


@pytest.mark.needs("apt-get", "gpg")
def test_apts_own_login_is_used_and_stays_there(own_host: Path, tmp_path: Path) -> None:
    """With auth.conf.d the mirror lets us in; nothing that Goldsmith keeps or gives out holds the password."""
    archive = Archive(tmp_path / "archive")
    archive.add("tool")
    archive.publish()
    wanted = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()

    def serve(asked: Asked) -> Reply:
        if asked.headers.get("Authorization") != wanted:
            return Reply(status=401, headers={"WWW-Authenticate": "Basic"})
        file = archive.directory / asked.path.rsplit("/", 1)[-1].replace("%5f", "_")
        return Reply(file.read_bytes()) if file.is_file() else Reply(status=404)

    with hostile() as server:
        server.fallback = serve
        (own_host / "auth.conf.d/mirror.conf").write_text(f"machine {server.address} login user password {SECRET}\n")
        packages = Packages(mirror=f"{server.address}/x", suites=("./",), keyring=archive.keyring)
        index = PackageIndex(Settings(state=tmp_path / "state", retry_for="0s", packages=packages))
        static = TRIXIE.model_copy(update={"variant": "static"})
        found = index.resolve(static, ("tool",))
        assert index.download(static, found)
        (own_host / "auth.conf.d/mirror.conf").unlink()
        with pytest.raises(GoldsmithError) as error:
            index.refresh(static)
    assert SECRET not in str(error.value)
    assert SECRET not in index.sources(TRIXIE)
    kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(kept) > 3
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
