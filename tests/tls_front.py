"""The simulator at the real address: TLS in front of it, for browsers that take https://web.whatsapp.com to be here."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOST = "web.whatsapp.com"
COMPANY = "A company's CA"
AUTHORITY = "ca.pem"
"""In the place that `tls_front` is given: who has signed its certificate."""
_HEADERS = {
    b"Host: web.whatsapp.com": b"Host: localhost",
    b"Origin: https://web.whatsapp.com": b"Origin: http://localhost",
}


@asynccontextmanager
async def tls_front(url: str, place: Path) -> AsyncIterator[list[str]]:
    """Flags with which a browser reaches the simulator at ``url`` as https://web.whatsapp.com; the last has it trust anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(lambda: context.load_cert_chain(certificate(place)))
    parts = urlsplit(url)
    running: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            back_reader, back_writer = await asyncio.open_connection(parts.hostname, parts.port)
            await asyncio.gather(
                _pump(reader, back_writer, forward=True), _pump(back_reader, writer, forward=False)
            )
        finally:
            running.discard(task)

    server = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield [f"--host-resolver-rules=MAP {HOST}:443 127.0.0.1:{port}", "--ignore-certificate-errors"]
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, forward: bool) -> None:
    with suppress(OSError):
        try:
            while data := await reader.read(65_536):
                for theirs, ours in _HEADERS.items() if forward else ():
                    data = data.replace(theirs, ours)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


def certificate(place: Path, host: str = HOST, named: x509.GeneralName | None = None) -> Path:
    """Of this host, with its key; beside it that of the authority that has signed it."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    signer, name = _name(COMPANY), _name(host)
    root = _make(signer, signer, authority.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    (place / AUTHORITY).write_bytes(_pem(root.sign(authority, hashes.SHA256())))
    made = _make(signer, name, key.public_key()).add_extension(
        x509.SubjectAlternativeName([named or x509.DNSName(host)]), critical=False
    )
    path = place / "front.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + _pem(made.sign(authority, hashes.SHA256())))
    return path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _make(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(1)
    return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - day, now + day)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
