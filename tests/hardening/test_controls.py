"""Every control's proof on real filesystems: its check is red where it is broken and green where it is hardened."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hardening.catalog import load_cases, load_profile, load_profiles
from hardening.check import broken, run_checks
from hardening.findings import CheckResult, ImageFacts, Outcome
from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from hardening.model import Cases, Kind, Proof
from hardening.overlay import apply_to, materialise
from hardening.proof import GOOD, prove_broken, prove_rendered
from images.scan.verify import refusals
from tests.support.trees import CONTROLS, PROFILES, TODAY, Layers, Trees, overlay_of, trees_on

CASES: dict[str, Cases] = {name: load_cases(control) for name, control in CONTROLS.items()}
PROOFS = [pytest.param(name, proof, id=f"{name}: {proof.title}") for name in CASES for proof in CASES[name].proof]
LISTED = [(profile, entry.control) for profile in PROFILES for entry in load_profile([ROOT], profile).controls]
Copies = Callable[[str, str], Path]

needs_trees = pytest.mark.needs("root", "mmdebstrap")


def facts_with(history: tuple[str, ...]) -> ImageFacts:
    return replace(GOOD, history=history)


@pytest.fixture(scope="module")
def trees(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trees]:
    with trees_on(layers.state, tmp_path_factory.mktemp("trees")) as made:
        yield made


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Just enough to count as a filesystem."""
    for name in ("usr", "etc"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def copies(trees: Trees) -> Iterator[Copies]:
    """Makes throw-away copies of the tree of a profile in a state."""
    with ExitStack() as mounted:
        yield lambda profile, state: mounted.enter_context(trees.copy(profile, state))


@pytest.fixture(scope="module")
def results(trees: Trees) -> Callable[[str], dict[str, CheckResult]]:
    """What every check says of a profile's hardened tree; asked once."""

    @cache
    def ask(profile: str) -> dict[str, CheckResult]:
        return {r.control: r for r in run_checks(overlay_of(profile), trees.of(profile, "hardened"), GOOD)}

    return ask


@needs_trees
@pytest.mark.parametrize(("profile", "control"), LISTED)
def test_a_control_is_green_on_the_hardened_tree(
    results: Callable[[str], dict[str, CheckResult]], profile: str, control: str
) -> None:
    """What a profile promises holds where it was applied, in every profile that lists the control."""
    result = results(profile)[control]
    assert result.outcome is Outcome.PASS, result.evidence


@needs_trees
@pytest.mark.parametrize(("control", "proof"), PROOFS)
def test_a_control_is_red_where_it_is_broken(
    trees: Trees, copies: Copies, tmp_path: Path, control: str, proof: Proof
) -> None:
    """The check sees the breach and names it, in a tree or inside a machine; where the proof says so, applying the
    control again heals it."""
    profile = proof.profile or CASES[control].profile
    overlay = overlay_of(profile, only=control, params=proof.params)
    proved, said = prove_broken(proof, overlay, copies(profile, proof.on), tmp_path / "overlay")
    assert proved, said


ORDINARY = {
    "a virtual environment": (
        'mkdir -p "$ROOT/opt/venv/bin" "$ROOT/opt/venv/lib/python3.13/site-packages/requests" && cd "$ROOT/opt/venv"'
        " && ln -s /usr/bin/perl bin/python3 && echo x > lib/python3.13/site-packages/requests/__init__.py"
        " && echo 'import _virtualenv' > lib/python3.13/site-packages/_virtualenv.pth && echo x > lib/one.so"
        " && ln -s lib lib64 && cd lib64/python3.13/site-packages && mkdir a-1.dist-info b-1.dist-info"
        " && echo x > 'a, \"b\".py' && echo y > common.py"
        " && mkdir __pycache__ && printf 'magi\\3\\0\\0\\0%060d' 0 > __pycache__/common.cpython-313.pyc"
        " && printf 'magi\\0\\0\\0\\0%060d' 0 > __pycache__/gone.cpython-313.pyc"
        """ && printf '%s,sha256=c8s4WKaHqElMozIwUwFigvPa051Cz2LKTnndoqrH2aw,2\\n' common.py requests/__init__.py"""
        """ ../../gone.py '"a, ""b"".py"' ../../../lib64/one.so > a-1.dist-info/RECORD"""
        " && printf 'common.py,sha256=%s=,2\\nb-1.dist-info/RECORD,,\\n' "
        "$(openssl dgst -sha256 -binary common.py | base64 | tr '+/=' '-_ ') > b-1.dist-info/RECORD"
    ),
    "programs with libraries beside them, and others of the account that runs": (
        'cd "$ROOT" && mkdir -p opt/tool srv/app && chown 65532 srv/app'
        r" && LC_ALL=C sed -E -e 's#libc\.so\.6#$ORIGIN/l#'"
        r""" -e 's/\x01\x00{7}(.{8}\x0c)/\x1d\x00\x00\x00\x00\x00\x00\x00\1/'"""
        " usr/bin/dash | tee opt/tool/run > srv/app/run"
    ),
    "modules of an application": 'mkdir -p "$ROOT/app/node_modules/a" && echo x > "$ROOT/app/node_modules/a/index.js"',
    "a program of its own name": 'echo x > "$ROOT/usr/local/bin/serve" && ln -s serve "$ROOT/usr/local/bin/serve2"',
    "another name for a packaged program": 'ln -s ls "$ROOT/usr/bin/list" && ln -s ../../usr/bin/ls "$ROOT/opt/ls"',
    "an alternative": (
        'ln -s /usr/bin/perl "$ROOT/etc/alternatives/language"'
        ' && ln -s /etc/alternatives/language "$ROOT/usr/bin/language"'
    ),
    "a server, as its packages configure it": (
        'cd "$ROOT" && mkdir -p etc/nginx/sites-available etc/nginx/sites-enabled usr/share/nginx usr/lib/nginx/modules'
        " && echo x > etc/nginx/sites-available/default && ln -s ../sites-available/default etc/nginx/sites-enabled/"
        " && ln -s ../../lib/nginx/modules usr/share/nginx/ && ln -s /usr/share/none usr/lib/x86_64-linux-gnu/"
    ),
    "a runtime with alternatives that lack manual pages, and libraries whose numbers look like paths": (
        'cd "$ROOT" && ln -s /usr/bin/perl etc/alternatives/js && ln -s /etc/alternatives/js usr/bin/js'
        " && ln -s /usr/share/man/man1/nodejs.1.gz etc/alternatives/js.1.gz"
        " && ln -s /usr/share/nodejs/none etc/alternatives/none && ln -s /etc/alternatives/none usr/lib/nodejs"
        r" && printf '\0/\0/ \0a/\0' >> etc/ld.so.cache"
    ),
    "a site": 'mkdir -p "$ROOT/srv/www" "$ROOT/etc/nginx/conf.d" && echo x > "$ROOT/srv/www/app.js"',
    "files of the definition": (
        'mkdir -p "$ROOT/usr/lib/python3/dist-packages" && echo /opt/x > "$ROOT/usr/lib/python3/dist-packages/x.pth"'
        ' && echo "# own" >> "$ROOT/etc/ssl/openssl.cnf" && echo x > "$ROOT/usr/local/lib/libown.so.1"'
    ),
    "an index with TLS": (
        'printf "[global]\nindex-url = https://pypi.example.com/simple\n# trusted-host = x\n" > "$ROOT/etc/pip.conf"'
    ),
    "settings and lists of packages that verify, or fetch from localhost": r"""
        cd "$ROOT/srv" && mkdir -p .m2 certs.d/r stunnel vendor/x .ssh
        printf 'server: http://localhost:8080\n# x\ninsecure-skip-tls-verify: false\n' > kubeconfig.yaml
        printf '[host."http://127.0.0.1:5000"]\nskip_verify = false\n' > certs.d/r/hosts.toml
        printf 'verifyChain = yes\n; verify = 0\n' > stunnel/x.conf && echo 'ssl_verify: true' > .condarc
        echo 'UserKnownHostsFile ~/.ssh/known_hosts' > .ssh/config && echo 'host_key_checking = True' > ansible.cfg
        printf '<url>https://m.example/</url><!--\n<url>http://x/</url>\n--><url>http://0.0.0.0/</url>'\
            > .m2/settings.xml
        printf 'Source = "http://p.example"\nurl = "http://localhost:3141/x"\n' > pyproject.toml
        printf 'source "https://rubygems.org"\n# source "http://x"\ngem "x", homepage: "http://x"\n' > Gemfile
        echo '"resolved": "https://r/x.tgz", "url": "http://x"' | tee package-lock.json > vendor/x/Pipfile
        echo 'source "http://x"' > vendor/x/Gemfile && echo '  resolved "http://[::1]:4873/x.tgz"' > yarn.lock
        printf '# http://x\n--index-url https://p.example/simple\n' > requirements.txt
        ln -s requirements.txt constraints.txt
        echo '{"homepage": "http://x", "config": {"secure-http": true}}' > composer.json
        printf '<add key="x" value="https://n.example" />\n<add key="http_proxy" value="http://p" />\n' > NuGet.Config
    """,
    "databases, a directory and images, as their packages and reviewers set them up": (
        'cd "$ROOT" && mkdir -p etc/mysql/conf.d etc/ldap etc/containers home/nonroot/.aws'
        " && echo etc/mysql/my.cnf.fallback > var/lib/dpkg/info/zz.list"
        " && printf '!includedir /etc/mysql/conf.d/\n' | tee etc/mysql/my.cnf.fallback | md5sum"
        " | sed 's#-$#etc/mysql/my.cnf.fallback#' > var/lib/dpkg/info/zz.md5sums"
        " && ln -s /etc/mysql/my.cnf.fallback etc/alternatives/my.cnf && ln -s /etc/alternatives/my.cnf etc/mysql/"
        " && printf '[client]\nssl-mode = VERIFY_IDENTITY\n' > etc/mysql/conf.d/own.cnf"
        r" && printf '[mysql]\nprompt=\\u@\\h> \n' > home/nonroot/.my.cnf"
        " && printf '[libdefaults]\nrdns = false\n' > etc/krb5.conf && echo TLS_REQCERT demand > etc/ldap/ldap.conf"
        " && printf '[x]\nDriver = libmaodbc.so\n' > etc/odbcinst.ini"
        " && printf '[default]\nregion = eu-central-1\n' > home/nonroot/.aws/config"
        """ && echo '{"default": [{"type": "reject"}], "transports": {"docker-daemon": {"": [{"type":'"""
        """' "insecureAcceptAnything"}]}}}' > etc/containers/policy.json"""
    ),
    "a public key": """printf '%s\\n' '-----BEGIN PUBLIC KEY-----' MIGHAgEAMBMGBy > "$ROOT/opt/key.pem" """,
    "certificates and public keys that are no text": (
        'cd "$ROOT/opt" && openssl genpkey -algorithm RSA -out key 2>/dev/null'
        " && openssl pkey -in key -pubout -outform DER -out public.der"
        " && openssl req -x509 -new -key key -subj /CN=x -out x.crt && openssl x509 -in x.crt -outform DER -out x.der"
        " && openssl rsa -in key -RSAPublicKey_out -outform DER -out pkcs1.der 2>/dev/null"
        " && openssl pkcs12 -export -nokeys -in x.crt -passout pass: -out trust.p12 && gzip < x.crt > x.gz && rm key"
        " && printf '0\\0\\1\\n' > zero && printf '[client]\\nuser = x\\n' > .my.cnf"
        " && printf '\\376\\355\\376\\355\\0\\0\\0\\2\\0\\0\\0\\1\\0\\0\\0\\2' > cacerts"
    ),
    "the store of Java": (
        'mkdir "$ROOT/etc/ssl/certs/java" && cd "$ROOT/etc/ssl/certs/java"'
        " && sed '/END CERTIFICATE/q' ../ca-certificates.crt | openssl x509 -outform DER > own && n=$(wc -c < own)"
        r" && { printf '\376\355\376\355\0\0\0\2\0\0\0\1\0\0\0\2\0\1a\0\0\0\0\0\0\0\0\0\5X.509\0\0'"
        r""" && printf "$(printf '\\%03o' $((n / 256)) $((n % 256)))" && cat own && printf '%020d' 0; } > cacerts"""
        " && rm own"
    ),
    "sessions of PHP, as its package brings them": (
        'cd "$ROOT" && mkdir -p var/lib/php/sessions && chmod 1733 var/lib/php/sessions'
        " && cd var/lib/dpkg/info && echo /var/lib/php/sessions > php-common.list && touch php-common.md5sums"
    ),
    "what is not the history of a repository": (
        'mkdir -p "$ROOT/srv/site/.github" "$ROOT/srv/site/objects/0a" "$ROOT/etc/ppp" && cd "$ROOT"'
        " && echo x | tee srv/site/.gitignore srv/site/.gitattributes srv/site/objects/0a/x.hg >> srv/site/.git"
        r""" && printf '# Secrets\n*\thostname\t""\t*\nguest\thostname\t"*"\t-\n' > etc/ppp/pap-secrets"""
    ),
    "links of an application to its data and to what passes": (
        'mkdir -p "$ROOT/app/public" "$ROOT/var/lib/app" && chown 65532 "$ROOT/var/lib/app" && cd "$ROOT/app"'
        " && ln -s /tmp tmp && ln -s /tmp/app.sock web.sock && ln -s /tmp/log log && ln -s /var/lib/app public/uploads"
        " && ln -s /dev/shm ../run/shm"
    ),
    "settings that name data, and say nothing that runs": r"""
        cd "$ROOT" && mkdir -p etc/nginx/conf.d etc/php/conf.d etc/ssh etc/containers/registries.conf.d srv/shop/lib
        mkdir -p etc/mercurial
        printf 'pid /tmp/nginx.pid;\nclient_body_temp_path /tmp/body;\n' > etc/nginx/conf.d/own.conf
        printf 'error_log /tmp/e.log;\n# include /tmp/*.conf;\n' >> etc/nginx/conf.d/own.conf
        printf 'sys_temp_dir = /tmp\nupload_tmp_dir=/tmp\nsession.save_path = "/tmp"\n' > etc/php/conf.d/own.ini
        printf 'listen = /tmp/php.sock\nslowlog = /tmp/slow.log\n' > etc/php/own.conf
        printf 'global\n stats socket /tmp/haproxy.sock mode 600\n' > etc/haproxy.cfg
        printf 'source: /tmp\npath: /tmp/data\ncache: /tmp/*\nexclude = /tmp/*\n' > srv/shop/own.yml
        printf "unix_socket_directories = '/tmp'\nlog_directory = /tmp/log\n" > srv/shop/postgresql.conf
        printf 'home = /usr/bin\ncommand = /usr/bin/python3 -m venv /tmp/build/venv\n' > srv/shop/pyvenv.cfg
        printf 'exec("/tmp/x.py")\n' > srv/shop/lib/own.py
        printf '"\\e[1~": beginning-of-line\nset bell-style none\n' >> etc/inputrc
        printf '[web]\ncacerts = /etc/ssl/certs/ca-certificates.crt\n' > etc/mercurial/hgrc
        printf '[extensions]\nrebase =\n# x = /x\n' >> etc/mercurial/hgrc
        printf 'set -g mouse on\n# run-shell x\n' > etc/tmux.conf
        printf 'host ssh-ed25519 AAAA\n' > etc/ssh/ssh_known_hosts
        printf '[[registry]]\nlocation = "r.example"\ninsecure = false\n' > etc/containers/registries.conf.d/own.conf
        printf '#!/usr/bin/env python3\n# /tmp/x\n' > srv/shop/lib/run && chmod 755 srv/shop/lib/run
        printf '../src\n/opt/src\n' > srv/shop/lib/own.pth
        mkdir -p srv/shop/.github/workflows srv/shop/vendor/x/y
        printf 'run: sh /tmp/install.sh\n' | tee srv/shop/.github/workflows/ci.yml > srv/shop/vendor/x/y/.travis.yml
    """,
    "settings of docker without a login": """echo '{"auths": {"registry.example": {}}}' > "$ROOT/opt/config.json" """,
}
ORDINARY_FACTS = replace(
    GOOD,
    declared=("/etc/ssl/openssl.cnf", "/usr/lib/python3/dist-packages/x.pth", "/usr/local/lib/libown.so.1"),
    config={
        "config": {
            "Env": [
                "PATH=/opt/venv/bin:/usr/local/bin:/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
                "PIP_INDEX_URL=https://pypi.example.com/simple", "PIP_PROXY=http://proxy.example.com:3128",
                "SCHEMA_REGISTRY=http://registry:8081", "JAVA_HOME=/usr/lib/jvm/java", "DOCKER_TLS_VERIFY=1",
                "LANG=C.UTF-8", "GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305", "PYTHON_VERSION=3.13.1",
                "NODE_VERSION=22.1.0", "NGINX_VERSION=1.27.1", "NJS_VERSION=0.8.5", "PG_MAJOR=17",
                "PGDATA=/var/lib/postgresql/data", "PGSSLMODE=prefer",
                "REDIS_DOWNLOAD_URL=http://download.redis.io/redis.tar.gz", "GOLANG_VERSION=1.23.1",
                "GOTOOLCHAIN=local", "GOPATH=/go", "JAVA_VERSION=jdk-21",
                "JAVA_OPTS=-Xmx1g -Djava.security.egd=file:/dev/./urandom",
                "SSL_CERT_DIR=/etc/ssl/certs", "HTTPS_PROXY=http://proxy.example.com:3128",
                "NODE_EXTRA_CA_CERTS=/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt",
                "TLS_CERT=/run/tls/tls.crt", "GLIBC_TUNABLES=glibc.malloc.arena_max=2:glibc.malloc.mmap_max=9",
                "JAVA_TOOL_OPTIONS=-XX:MaxRAMPercentage=75", "JDK_JAVA_OPTIONS=-Xmx1g  -Duser.timezone=Europe/Berlin",
                "_JAVA_OPTIONS=-XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -XX:MinRAMPercentage=9.5 -Dfile.encoding=UTF-8",
                "NODE_OPTIONS=--max-old-space-size=512 --enable-source-maps", "RUBYOPT=-W:no-deprecated --yjit",
                "PYTHONUNBUFFERED=1", "TMPDIR=/tmp", "XDG_CACHE_HOME=/tmp/.cache", "XDG_RUNTIME_DIR=/tmp/run",
                "npm_config_cache=/tmp/.npm", "PROMETHEUS_MULTIPROC_DIR=/dev/shm/metrics", "KAFKA_LOG_DIRS=/tmp/kafka",
                "GUNICORN_CMD_ARGS=--worker-tmp-dir /dev/shm --bind unix:/tmp/web.sock", "KRB5CCNAME=FILE:/tmp/cc",
                "CATALINA_OPTS=-Djava.io.tmpdir=/tmp -XX:HeapDumpPath=/tmp/dumps -Xlog:gc*:file=/tmp/gc",
                "JAVA_TOOL_OPTIONS=-Djava.io.tmpdir=/tmp -XX:HeapDumpPath=/tmp/dumps -Xlog:gc:/tmp/gc",
                "DOCKER_HOST=unix:///tmp/d.sock", "DATABASE_URL=sqlite:////tmp/shop.db", "API_URL=http://tmp/v1",
                "ASSETS=/opt/tmp:${HOME}/tmp:/tmpl", "PGHOST=/tmp", "MPLCONFIGDIR=/tmp", "READY_FILE=/tmp/ready",
                "WORK_DIR=/tmp/work", "JAVA_OPTS=-Dspring.servlet.multipart.location=/tmp", "FONTCONFIG_PATH=/tmp",
                "AWS_PAGER=", "GIT_PAGER=less -FRX", "EDITOR=vim", "VISUAL=vim", "ERL_FLAGS=+JPperf true +sbwt none",
                "ELIXIR_ERL_OPTIONS=+fnu",
                "GIT_ALLOW_PROTOCOL=https:ssh", "INPUTRC=/etc/inputrc",
            ],
            "Entrypoint": ["/app/serve"], "Volumes": {"/data": {}, "/var/lib/shop": {}}, "WorkingDir": "/data",
            "Cmd": ["--worker-tmp-dir", "/dev/shm/x", "--pid", "/run/shop.pid", "/tmp/data"], "OnBuild": [],
        }
    },
    healthcheck="CMD-SHELL test -f /tmp/healthy && cat /run/shop.pid || exit 1",
)  # fmt: skip


@needs_trees
def test_what_ordinary_images_hold_is_no_breach(copies: Copies) -> None:
    """Applications below /opt and /app, links, a definition's own files, an index and authorities with TLS."""
    with_images = copies("container-base", "hardened")
    for plant in ORDINARY.values():
        run(["sh", "-euc", plant], env={"ROOT": str(with_images)})
    results = run_checks(overlay_of("container-base"), with_images, ORDINARY_FACTS)
    assert [(result.control, result.evidence) for result in results if result.outcome is not Outcome.PASS] == []


def test_every_control_has_a_proof_and_stands_in_a_profile() -> None:
    """A control that nothing proves, or that nobody uses, does not land."""
    listed = {entry.control for profile in load_profiles([ROOT]).values() for entry in profile.controls}
    assert set(CONTROLS) == listed
    assert all(cases.proof for cases in CASES.values())
    kinds = [c.control.applies_to for c in CONTROLS.values()]
    assert len([kind for kind in kinds if Kind.CONTAINER in kind]) >= 16
    assert len([kind for kind in kinds if kind == (Kind.MACHINE,)]) >= 30


@pytest.mark.parametrize("profile", sorted(name for name in PROFILES if name.startswith("cis-")))
def test_every_control_that_a_cis_profile_adds_names_its_numbers_in_the_benchmark(profile: str) -> None:
    """Of both releases, as numbers with dots; what holds for every machine stands in the profile that it extends."""
    own = [entry for entry in load_profile([ROOT], profile).controls if Path(entry.file).stem == profile]
    assert own
    for entry in own:
        references = CONTROLS[entry.control].control.references
        for release in ("cis-debian-12", "cis-debian-13"):
            numbers = references.get(release, ())
            assert numbers, f"{entry.control} has no {release}"
            assert [number for number in numbers if not re.fullmatch(r"[1-7](\.\d+){1,4}", number)] == []


@pytest.mark.parametrize("name", sorted(name for name, control in CONTROLS.items() if control.apply is not None))
def test_a_control_that_changes_the_image_is_proved_to_heal(name: str) -> None:
    """An apply script that nothing proves could do nothing at all."""
    assert any(proof.healed for proof in CASES[name].proof)


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_a_control_that_installs_files_shows_what_they_look_like(name: str) -> None:
    """Every template has a case with its exact text, which holds."""
    profile = load_profile([ROOT], CASES[name].profile)
    found = prove_rendered(CONTROLS[name], CASES[name], profile, CONTROLS, TODAY)
    assert [one for one in found if not one.passed] == []


@needs_trees
@pytest.mark.parametrize("profile", PROFILES)
def test_applying_a_profile_twice_changes_nothing(trees: Trees, copies: Copies, tmp_path: Path, profile: str) -> None:
    """A child image is hardened after its parent was: what is right already is not even touched, so that its layer
    holds what the child adds and no more."""
    tree = copies(profile, "hardened")
    apply_to(overlay_of(profile), tree, tmp_path / "overlay")
    assert touched(tree) == []


@needs_trees
@pytest.mark.parametrize("profile", ["container-base", "cis-level2"])
def test_a_minimal_image_hardens_itself_to_the_same_files(trees: Trees, copies: Copies, profile: str) -> None:
    """The driver needs no more than a minimal Debian has, and inside it does what it does from outside."""
    tree = copies(profile, "unhardened")
    materialise(overlay_of(profile), tree / "overlay")
    run(["chroot", str(tree), "sh", "/overlay/apply.sh"], env={"ROOT": "/", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    shutil.rmtree(tree / "overlay")
    assert fingerprint(tree) == fingerprint(trees.of(profile, "hardened"))


@needs_trees
def test_a_failing_script_names_its_control(trees: Trees, copies: Copies, tmp_path: Path) -> None:
    """Hardening stops at the first failure instead of shipping half of it."""
    overlay = overlay_of("container-base")
    broken = replace(overlay, applies=tuple(replace(script, text="exit 7") for script in overlay.applies[:1]))
    with pytest.raises(OutsideError, match="control nonroot-account: apply failed"):
        apply_to(broken, copies("container-base", "hardened"), tmp_path / "overlay")


@needs_trees
def test_a_link_inside_the_image_does_not_lead_the_installation_out(
    trees: Trees, copies: Copies, tmp_path: Path
) -> None:
    """An image with /etc/profile.d → a folder of the host gets no file written there."""
    tree = copies("container-base", "hardened")
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(tree / "etc/profile.d")
    (tree / "etc/profile.d").symlink_to(outside)
    with pytest.raises(OutsideError, match="leads out of the image"):
        apply_to(overlay_of("container-base"), tree, tmp_path / "overlay")
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        'PEM_HEADER = "-----BEGIN PRIVATE KEY-----"\nif line == PEM_HEADER:\n',
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\n" + 3 * ("MIGH" * 16 + "\n"),
        "-----BEGIN CERTIFICATE-----\n" + 3 * ("MIGH" * 16 + "\n"),
        "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
        "sha512-" + "AKIA" * 22 + "==\n",
        "PrivateKey = /run/secrets/wireguard\n# createUser NAME\n",
        '{"kty": "RSA", "n": "' + 9 * "0vx7agoebG" + '", "e": "AQAB"}\n',
    ],
)
def test_what_only_looks_like_a_secret_is_none(bare: Path, text: str) -> None:
    """Programs that know a key's header, public keys, examples and checksums must not cost anyone a waiver."""
    (bare / "usr/file").write_text(text)
    [result] = run_checks(overlay_of("container-base", only="no-secrets"), bare, GOOD)
    assert result.outcome is Outcome.PASS, result.evidence


def test_variables_that_point_at_a_secret_hold_none(bare: Path) -> None:
    """Where a secret lies, or that it comes from elsewhere, may stand in the history."""
    history = ("DB_PASSWORD_FILE=/run/secrets/db", "TOKEN=$TOKEN", "GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305")
    [result] = run_checks(overlay_of("container-base", only="no-secrets-in-history"), bare, facts_with(history))
    assert result.outcome is Outcome.PASS, result.evidence


def test_a_packaged_translation_named_like_the_shadow_file_is_no_secret(bare: Path) -> None:
    """passwd brings shadow.mo; the same file is refused where no package lists it, and /etc/shadow always is."""
    lists = bare / "var/lib/dpkg/info"
    lists.mkdir(parents=True)
    (lists / "passwd.list").write_text("/usr/share/locale/eu/LC_MESSAGES/shadow.mo\n/etc/shadow\n")
    translation = bare / "usr/share/locale/eu/LC_MESSAGES/shadow.mo"
    translation.parent.mkdir(parents=True)
    overlay = overlay_of("container-base", only="no-secrets")
    for path, outcome in (
        (translation, Outcome.PASS),
        (translation.with_name("shadow2.mo"), Outcome.FAIL),
        (bare / "etc/shadow", Outcome.FAIL),
    ):
        path.write_text("name:x:1:2:\n")
        path.chmod(0o644)
        [result] = run_checks(overlay, bare, GOOD)
        assert result.outcome is outcome, result.evidence
        if outcome is Outcome.FAIL:
            path.unlink()


@pytest.mark.needs("root")
def test_a_device_outside_of_dev_is_refused_but_not_the_sign_that_a_layer_removes_a_file(bare: Path) -> None:
    """Plants of proofs may make no devices. A host's engine keeps devices 0:0 in the layers of its images."""
    overlay = overlay_of("container-base", only="no-world-writable")
    nodes = (("removed", stat.S_IFCHR, 0, Outcome.PASS), ("disk", stat.S_IFBLK, 254, Outcome.FAIL))
    for name, kind, major, outcome in nodes:
        os.mknod(bare / "usr" / name, kind | 0o600, os.makedev(major, 0))
        [result] = run_checks(overlay, bare, GOOD)
        assert result.outcome is outcome, result.evidence
    assert result.evidence == "writable by everyone, or a device:\n/usr/disk (mode 600)"


@pytest.mark.needs("root")
def test_settings_that_allow_names_stay_those_of_the_account_of_their_package(bare: Path) -> None:
    """redis-sentinel writes its own; those that no package brought stay as well, for the check to refuse."""
    (bare / "var/lib/dpkg/info").mkdir(parents=True)
    (bare / "var/lib/dpkg/info/redis.list").write_text("/etc/redis.conf\n/etc/sentinel.conf\n")
    owners = {"redis.conf": 0, "sentinel.conf": 5, "own.conf": 5}
    for name in owners:
        (bare / "etc" / name).write_text("x")
        (bare / "etc" / name).chmod(0o640)
        os.chown(bare / "etc" / name, 5, 5)
    env = {"ROOT": str(bare), "PARAM_ALLOW": "/etc/sentinel.conf", "PATH": "/usr/bin:/bin"}
    run(["sh", "-c", CONTROLS["system-files-root-owned"].apply or ""], env=env)
    assert {name: (bare / "etc" / name).stat().st_uid for name in owners} == owners


@pytest.mark.needs("apt-config")
def test_a_source_that_is_trusted_in_the_place_of_a_key_gets_none_of_ours(bare: Path) -> None:
    """apt would verify a vendor's packages with Debian's keys from then on. It is not trusted any more, and refused."""
    sources = {
        "a.list": "deb [ trusted=yes allow-weak=yes ] https://example.com/a x main\n",
        "b.sources": "Types: deb\nURIs: https://example.com/b\nSuites: x/\nTrusted : yes\n",
        "c.list": "deb https://example.com/c x main\n",
    }
    for folder in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d", "usr/bin"):
        (bare / folder).mkdir(parents=True)
    (bare / "usr/bin/apt-get").touch()
    for name, text in sources.items():
        (bare / "etc/apt/sources.list.d" / name).write_text(text)
    env = {"ROOT": str(bare), "PARAM_KEYRING": "/k", "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        run(["sh", "-c", CONTROLS["apt-sources-signed"].apply or ""], env=env)
    assert {name: (bare / "etc/apt/sources.list.d" / name).read_text() for name in sources} == {
        "a.list": "deb [ trusted=no allow-weak=no ] https://example.com/a x main\n",
        "b.sources": "Types: deb\nURIs: https://example.com/b\nSuites: x/\nTrusted : no\n",
        "c.list": "deb [signed-by=/k] https://example.com/c x main\n",
    }
    [result] = run_checks(overlay_of("container-base", only="apt-sources-signed"), bare, GOOD)
    refused = "/a.list: no Signed-By for https://example.com/a", "/b.sources: no Signed-By for https://example.com/b"
    assert result.outcome is Outcome.FAIL
    assert result.evidence.splitlines() == [f"/etc/apt/sources.list.d{line}" for line in refused]


def test_an_image_with_no_volumes_is_not_judged_by_its_history(bare: Path) -> None:
    """An empty object of the configuration stands on one line, and the history follows it."""
    config = {"config": {"Entrypoint": ["/app/serve"], "Volumes": {}}, "history": [{"created_by": "/bin/sh -c true"}]}
    overlay = overlay_of("container-base", only="entrypoint-protected")
    [result] = run_checks(overlay, bare, replace(GOOD, config=config))
    assert result.outcome is Outcome.PASS, result.evidence


@pytest.mark.needs("root")
@pytest.mark.parametrize(("user", "programs"), [("65532:0", 0o755), ("", 0o775), ("0:0", 0o775)])
def test_data_of_group_0_is_what_the_default_user_may_write(bare: Path, user: str, programs: int) -> None:
    """As OpenShift wants it. In an image that runs as root, group 0 is root's."""
    for folder, mode in (("opt/app", 0o755), ("opt/app/bin", programs), ("opt/app/data", 0o775)):
        (bare / folder).mkdir(parents=True)
        (bare / folder).chmod(mode)
    config = {"Env": ["PATH=/opt/app/bin"], "Entrypoint": ["/opt/app/bin/serve", "/opt/app/data"]}
    facts = replace(GOOD, user=user, config={"config": config})
    for control in ("entrypoint-protected", "environment-safe"):
        [result] = run_checks(overlay_of("container-base", only=control), bare, facts)
        assert result.outcome is Outcome.PASS, result.evidence


def test_evidence_never_repeats_the_secret(bare: Path) -> None:
    """Evidence is published with the image: it names the variable, not its value."""
    history = ("DB_PASSWORD=hunter2", "RUN curl https://me:hunter2@example.org")
    [result] = run_checks(overlay_of("container-base", only="no-secrets-in-history"), bare, facts_with(history))
    assert result.outcome is Outcome.FAIL
    assert "DB_PASSWORD" in result.evidence
    assert "hunter2" not in result.evidence


def test_a_host_without_an_audit_trail_is_told_so(bare: Path) -> None:
    """In words of the control, not in those of the program that looked for it."""
    env = {"ROOT": str(bare), "LIVE": "1", "PATH": "/usr/bin:/bin"}
    done = run(["sh", "-c", CONTROLS["audit-retention"].check], env=env, ok=(1,))
    assert (done.stdout, done.stderr) == ("there is no /var/log/audit or no /etc/audit: no trail is kept\n", "")


@pytest.mark.parametrize("profile", PROFILES)
def test_an_empty_tree_passes_nothing(tmp_path: Path, profile: str) -> None:
    """Nothing looked at is never a pass: not for an empty folder, and not for empty usr and etc."""
    blind = ImageFacts()
    assert {r.outcome for r in run_checks(overlay_of(profile), tmp_path, blind)} == {Outcome.ERROR}
    (tmp_path / "usr").mkdir()
    (tmp_path / "etc").mkdir()
    passed = [r.control for r in run_checks(overlay_of(profile), tmp_path, blind) if r.outcome is Outcome.PASS]
    assert passed == []


@pytest.mark.parametrize("name", ["etc", "usr", "home"])
def test_a_tree_whose_top_leads_out_passes_nothing(tmp_path: Path, name: str) -> None:
    """An image with /etc → /etc would be judged by the host's own files."""
    for folder in {"usr", "etc"} - {name}:
        (tmp_path / folder).mkdir()
    (tmp_path / name).symlink_to("/" + name)
    results = run_checks(overlay_of("container-base"), tmp_path, GOOD)
    assert {result.outcome for result in results} == {Outcome.ERROR}
    assert f"/{name} is a link" in results[0].evidence


def test_an_absent_tree_passes_nothing(tmp_path: Path) -> None:
    """A wrong path is no clean image."""
    results = run_checks(overlay_of("container-base"), tmp_path / "absent", GOOD)
    assert {result.outcome for result in results} == {Outcome.ERROR}


@pytest.mark.parametrize(
    ("script", "outcome", "evidence"),
    [
        ("echo seen; exit 0", Outcome.PASS, "seen"),
        ("echo bad; exit 1", Outcome.FAIL, "bad"),
        ("echo none; exit 2", Outcome.NOT_APPLICABLE, "none"),
        ("echo oops >&2; exit 3", Outcome.ERROR, "status 3\noops"),
        ("exit 0", Outcome.ERROR, "said nothing"),
        ("echo seen; echo 'find: /root: Permission denied' >&2", Outcome.ERROR, "may not have seen all"),
        ("no-such-program", Outcome.ERROR, "status 127"),
        ("kill -9 $$", Outcome.ERROR, "status 137"),
        ("seq 100", Outcome.PASS, "… and 60 lines more"),
        ('echo "$ROOT $LIVE"', Outcome.PASS, " 0"),
    ],
)
def test_only_a_check_that_says_what_it_saw_passes(bare: Path, script: str, outcome: Outcome, evidence: str) -> None:
    """A check that breaks, dies or stays silent counts as no pass."""
    overlay = overlay_of("container-base", only="healthcheck")
    overlay = replace(overlay, checks=(replace(overlay.checks[0], text=script),))
    [result] = run_checks(overlay, bare, GOOD)
    assert result.outcome is outcome
    assert evidence in result.evidence


def test_a_check_that_does_not_end_is_no_pass(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging check is stopped and counts as an error."""
    monkeypatch.setattr("hardening.check.TIME_LIMIT_SECONDS", 0.2)
    overlay = overlay_of("container-base", only="healthcheck")
    overlay = replace(overlay, checks=(replace(overlay.checks[0], text="sleep 30"),))
    [result] = run_checks(overlay, bare, GOOD)
    assert result.outcome is Outcome.ERROR
    assert "did not finish within 0.2 s" in result.evidence


@pytest.mark.parametrize(
    ("script", "said", "last"),
    [
        ("echo oops >&2; exit 3", "the check ended with status 3", "oops"),
        ("seq 100; no-such-program", "the check ended with status 127", "no-such-program: not found"),
        ("echo seen; echo denied >&2", "the check complained", "denied"),
        ("case x in", "the check complained", "yntax error"),
        ("sleep 30", "did not finish within 0.2 s", ""),
    ],
)
def test_a_check_that_breaks_is_its_authors_error(
    bare: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str, last: str
) -> None:
    """Exit code 2 with the file and its last lines: not a verdict on the image, which has not passed either."""
    monkeypatch.setattr("hardening.check.TIME_LIMIT_SECONDS", 0.2 if script.startswith("sleep") else 60)
    overlay = overlay_of("container-base", only="healthcheck")
    overlay = replace(overlay, checks=(replace(overlay.checks[0], text=script),))
    refused = refusals(run_checks(overlay, bare, GOOD))
    assert refused
    error = broken(refused, [ROOT])
    assert error
    assert error.exit_code == 2
    assert str(error).startswith(f"{ROOT}/hardening/controls/healthcheck/check.sh: ")
    assert said in str(error)
    assert last in error.evidence


def test_what_really_fails_is_refused_whatever_else_breaks(bare: Path) -> None:
    """So is a tree that there is nothing to look at in: neither is the fault of a check."""
    overlay = overlay_of("container-base", only="healthcheck")
    check = overlay.checks[0]
    both = replace(overlay, checks=(replace(check, text="exit 3"), replace(check, text="echo bad; exit 1")))
    for tree in (bare, bare / "absent"):
        refused = refusals(run_checks(both, tree, GOOD))
        assert len(refused) == 2
        assert broken(refused, [ROOT]) is None


def entries(tree: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every path in the tree."""
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            path = Path(folder) / name
            yield str(path.relative_to(tree)), path, path.lstat()


def touched(copy: Path) -> list[str]:
    """What was changed of a copy in any way: the kernel has put a path into its upper layer that was opened to be
    written, or given the very mode that it had.
    """
    return sorted(name for name, _, _ in entries(copy.with_name("upper")))


def fingerprint(tree: Path) -> dict[str, tuple[object, ...]]:
    """Everything of a tree that its image layer holds, except times, which layers clamp."""
    found: dict[str, tuple[object, ...]] = {}
    for name, path, info in entries(tree):
        body = ""
        if stat.S_ISLNK(info.st_mode):
            body = str(path.readlink())
        elif stat.S_ISREG(info.st_mode):
            body = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = (info.st_mode, info.st_uid, info.st_gid, body)
    return found


@pytest.mark.needs("docker")
def test_a_docker_that_does_not_answer_is_said_to_be_silent_and_nothing_else_of_it(bare: Path) -> None:
    """Its client then shows the template of an answer that it has not got, and ends with 0."""
    (bare / "usr/sbin").mkdir()
    (bare / "usr/sbin/dockerd").touch(0o755)
    values = {f"PARAM_{name}": value for name, value in (("USERNS_REMAP", "off"), ("TCP", "off"), ("LOG_SIZE", "10m"))}
    env = {"ROOT": str(bare), "LIVE": "1", "PATH": "/usr/bin:/bin", "DOCKER_HOST": f"unix://{bare}/nowhere", **values}
    done = run(["sh", "-c", CONTROLS["container-daemon"].check], env=env, ok=(1,))
    assert "Docker did not answer, so that how it runs is not known: Cannot connect to the Docker daemon" in done.stdout
    assert "systemctl start docker starts it" in done.stdout
    assert not re.search("template|live-restore|AppArmor|swarm", done.stdout)


def test_what_is_mounted_is_found_where_a_link_leads(tmp_path: Path) -> None:
    """As of /home on another disk; a folder on which nothing is mounted has no options of its own."""
    (tmp_path / "link").symlink_to("/proc")
    check = CONTROLS["mount-options"].check
    function = check[check.index("# mounted") : check.index("# lacks")]
    asked = f"{function}\nmounted /proc; echo; mounted {tmp_path}/link; echo; mounted {tmp_path}; echo"
    real, linked, none, _ = run(["sh", "-euc", asked]).stdout.split("\n")
    assert "rw" in real.split(",")
    assert (linked, none) == (real, "")
