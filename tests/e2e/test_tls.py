"""TLS and mutual TLS, with certificates made on the spot."""

import shutil
import subprocess

import grpc
import pytest
from servers import FREE_PORTS, LANES, Servers

from servegrpc.client import AsyncClient, CallError, Tls

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificates with the openssl command")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with an authority, and a server and a client certificate by it; and another authority that nobody trusts."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name, *flags):
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")
        command = ["openssl", "req", "-x509", *key, "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "2", *flags]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    make("authority")
    make("stranger")
    by_authority = ("-CA", "authority.pem", "-CAkey", "authority.key")
    make("server", *by_authority, "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    make("client", *by_authority, "-addext", "basicConstraints=critical,CA:FALSE")
    return folder


@pytest.fixture(scope="module")
def start(certificates, archive):
    """Start a TLS server with these options more; all are stopped after the module."""
    servers = Servers()

    def run(*options):
        tls = ("--certificate-file", certificates / "server.pem", "--private-key-file", certificates / "server.key")
        return servers(*tls, *options, archive("echo"))

    yield run
    servers.stop()


@pytest.fixture(scope="module", params=LANES, ids=lambda lane: f"lane_{lane}")
def tls_server(request, start):
    return start("--fast-lane", request.param)


@pytest.fixture(scope="module", params=LANES, ids=lambda lane: f"lane_{lane}")
def mutual_server(request, start, certificates):
    return start("--client-ca-file", certificates / "authority.pem", "--fast-lane", request.param)


def test_tls(tls_server, certificates):
    """A client that trusts the authority → served on both ports."""
    with tls_server.client(tls=Tls(certificates / "authority.pem")) as client:
        assert client.predict("echo", "x").output == "x"
        assert [model.name for model in client.models()] == ["echo"]
        assert client.health()


async def test_tls_async(tls_server, certificates):
    """The same from asyncio, the certificate given as bytes."""
    async with AsyncClient(tls_server.inference, tls=Tls((certificates / "authority.pem").read_bytes())) as client:
        assert (await client.predict("echo", "x")).output == "x"


@pytest.mark.parametrize("tls", [False, True, "stranger.pem"], ids=str)
def test_untrusted(tls, tls_server, certificates):
    """A client without TLS, with the system's authorities, or with another authority → UNAVAILABLE; the server serves on."""
    trust = Tls(certificates / tls) if isinstance(tls, str) else tls
    with tls_server.client(tls=trust, attempts=1) as client, pytest.raises(CallError) as caught:
        client.predict("echo", "x")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    test_tls(tls_server, certificates)


def test_mutual(mutual_server, certificates):
    """A server that asks for client certificates, and a client with one of the authority → served."""
    tls = Tls(certificates / "authority.pem", certificates / "client.key", certificates / "client.pem")
    with mutual_server.client(tls=tls) as client:
        assert client.predict("echo", "x").output == "x"


@pytest.mark.parametrize("name", ["", "stranger"])
def test_mutual_refused(name, mutual_server, certificates):
    """A client without a certificate, or with one of another authority → UNAVAILABLE."""
    mine = (certificates / f"{name}.key", certificates / f"{name}.pem") if name else ()
    with mutual_server.client(tls=Tls(certificates / "authority.pem", *mine), attempts=1) as client, pytest.raises(CallError) as caught:
        client.predict("echo", "x")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_cli(tls_server, certificates, run_cli):
    """`servegrpc predict` with --root-certificates → the result; without → exit 1 and one line."""
    options = ("predict", "echo", "-i", "hello", "--address", tls_server.inference)
    trusting = run_cli(*options, "--root-certificates", certificates / "authority.pem")
    assert (trusting.returncode, trusting.stdout) == (0, "hello\n")
    plain = run_cli(*options, "--timeout", "5")
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: no server answers")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--certificate-file", "server.pem"), "TLS needs both a certificate file and a private key file"),
        (("--certificate-file", "server.pem", "--private-key-file", "nothing.key"), "nothing.key"),
    ],
    ids=["no key", "key missing"],
)
def test_wrong_options(options, words, certificates, run_cli):
    """A certificate without its key, or a file that is not there → exit 1 and one line saying so."""
    result = run_cli("serve", *FREE_PORTS, *options, cwd=certificates)
    assert result.returncode == 1
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
