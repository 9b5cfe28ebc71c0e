"""
The peer, in one file that Synapse's own Python runs: it signs, and computes event ids, with Synapse's code, and knows nothing of `rollout`.

It joins the rooms that the lab tells it to (PUT /join/ROOM) and keeps a line in received.jsonl for each event that comes. It verifies
nothing, and answers no question but for its version and its key: it is there to listen.

A sender that was away doesn't push all that it missed. It pushes the last event of each room and leaves it to its peer to ask for what
lies before. So does this one: an event that another refers to, and that didn't come, is asked for and kept as "fetched". An event that
nothing leads to is lost.
"""

import argparse
import datetime as dt
import http.client
import ipaddress
import json
import queue
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key, read_signing_keys, write_signing_keys
from signedjson.sign import sign_json
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import add_hashes_and_signatures
from synapse.events import make_event_from_dict

ASK_TIMEOUT_S = 30.0
# Longer than Synapse keeps an idle connection (two minutes): it must not find one closed that it is about to use.
IDLE_TIMEOUT_S = 300.0
ASK_AGAIN_S = 1.0
# A transaction holds at most 50 events of 64 KiB and 100 smaller things; joining a room, its whole state.
BYTES_MAX = 32 * 1024 * 1024
VALID_DAYS = 3650
_KEY_VALID_MS = 24 * 3600 * 1000
_FEDERATION = "/_matrix/federation/v1"


class RefusedError(Exception):
    """The homeserver has answered, and won't answer differently next time."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A server's name and its signing key."""

    name: str
    key: Any

    def sign(self, content: dict[str, Any]) -> dict[str, Any]:
        signed: dict[str, Any] = sign_json(content, self.name, self.key)
        return signed

    @property
    def key_id(self) -> str:
        return f"{self.key.alg}:{self.key.version}"

    def published(self) -> dict[str, Any]:
        """Return what GET /_matrix/key/v2/server answers."""
        return self.sign(
            {
                "server_name": self.name,
                "valid_until_ts": int(time.time() * 1000) + _KEY_VALID_MS,
                "verify_keys": {self.key_id: {"key": encode_verify_key_base64(get_verify_key(self.key))}},
                "old_verify_keys": {},
            }
        )

    def authorization(self, destination: str, method: str, path: str, content: dict[str, Any] | None) -> str:
        """Return the header that says who asks."""
        asked = {"method": method, "uri": path, "origin": self.name, "destination": destination}
        signature = self.sign(asked if content is None else {**asked, "content": content})["signatures"][self.name][self.key_id]
        return f'X-Matrix origin="{self.name}",destination="{destination}",key="{self.key_id}",sig="{signature}"'


class Homeserver:
    """The homeserver that we are a peer of, by the address of its proxy."""

    def __init__(self, name: str, url: str, identity: Identity) -> None:
        parts = urlsplit(url)
        self._name = name
        self._address = (str(parts.hostname), parts.port)
        self._identity = identity

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raise RefusedError when it says no, OSError or HTTPException when it says nothing of use now."""
        headers = {"Authorization": self._identity.authorization(self._name, method, path, content), "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(*self._address, timeout=ASK_TIMEOUT_S)
        try:
            connection.request(method, path, None if content is None else json.dumps(content).encode(), headers)
            response = connection.getresponse()
            text = response.read(BYTES_MAX)
        finally:
            connection.close()
        if response.status >= 500:  # noqa: PLR2004  (the class of server errors)
            raise ConnectionError(f"{method} {path} was answered {response.status}")
        if response.status != 200:  # noqa: PLR2004
            raise RefusedError(f"{method} {path} was answered {response.status}: {text[:200]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer


@dataclass(frozen=True, slots=True)
class Event:
    """What we need to know of an event; *parents* are those that came right before it."""

    id: str
    room: str
    depth: int
    parents: tuple[str, ...]


def read_event(pdu: dict[str, Any], version: str) -> Event:
    """Read an event as servers send it: without its id, which is a hash of the rest."""
    event = make_event_from_dict(pdu, KNOWN_ROOM_VERSIONS[version])
    return Event(event.event_id, event.room_id, event.depth, tuple(event.prev_event_ids()))


@dataclass(frozen=True, slots=True)
class Room:
    """A room we are in; what lies at or below *depth* was there before us."""

    version: str
    depth: int


class Book:
    """What has come: in memory, and as lines of a file that the next process goes on from."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self.rooms: dict[str, Room] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                self._learn(json.loads(line))
        self._file = path.open("a", buffering=1)

    def knows(self, event_id: str) -> bool:
        return event_id in self._known

    def keep_join(self, event: Event, version: str) -> None:
        self._keep({"event": event.id, "room": event.room, "how": "joined", "version": version, "depth": event.depth})

    def keep(self, event: Event, how: str) -> None:
        """Keep it even if it has come before: whoever reads this counts."""
        self._keep({"event": event.id, "room": event.room, "how": how})

    def _keep(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self._learn(entry)
            self._file.write(json.dumps({**entry, "at_s": time.time()}) + "\n")

    def _learn(self, entry: dict[str, Any]) -> None:
        self._known.add(entry["event"])
        if entry["how"] == "joined":
            self.rooms[entry["room"]] = Room(entry["version"], entry["depth"])


class Peer:
    """Joins rooms, takes what is pushed, and asks for what should have been there before it."""

    def __init__(self, identity: Identity, homeserver: Homeserver, book: Book) -> None:
        self.identity = identity
        self._homeserver = homeserver
        self._book = book
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()

    def join(self, room: str) -> None:
        """Join a room, unless we are in it. Raises as Homeserver.ask does."""
        if room in self._book.rooms:
            return
        user = f"@peer:{self.identity.name}"
        versions = "&".join(f"ver={quote(version)}" for version in KNOWN_ROOM_VERSIONS)
        proposed = self._homeserver.ask("GET", f"{_FEDERATION}/make_join/{quote(room, safe='')}/{quote(user, safe='')}?{versions}")
        version = proposed["room_version"]
        content = {**proposed["event"], "origin_server_ts": int(time.time() * 1000)}
        add_hashes_and_signatures(KNOWN_ROOM_VERSIONS[version], content, self.identity.name, self.identity.key)
        event = read_event(content, version)
        path = f"/_matrix/federation/v2/send_join/{quote(room, safe='')}/{quote(event.id, safe='')}?omit_members=true"
        self._homeserver.ask("PUT", path, content)
        self._book.keep_join(event, version)

    def take(self, pdus: list[dict[str, Any]]) -> None:
        """Keep what was pushed in one transaction."""
        events = [self._read(pdu) for pdu in pdus if pdu["room_id"] in self._book.rooms]
        for event in events:
            self._book.keep(event, "pushed")
        # Only now: what one refers to may have come with it.
        for event in events:
            self._want_parents(event)

    def fetch_for_ever(self) -> None:
        """Ask for what is missing, one event after the other; again if the homeserver is not there just now."""
        while True:
            event_id = self._wanted.get()
            if self._book.knows(event_id):
                continue
            try:
                answer = self._homeserver.ask("GET", f"{_FEDERATION}/event/{quote(event_id, safe='')}")
            except RefusedError as refusal:
                say(str(refusal))
                continue
            except (OSError, http.client.HTTPException):
                time.sleep(ASK_AGAIN_S)
                self._wanted.put(event_id)
                continue
            for event in map(self._read, answer["pdus"]):
                self._book.keep(event, "fetched")
                self._want_parents(event)

    def _read(self, pdu: dict[str, Any]) -> Event:
        return read_event(pdu, self._book.rooms[pdu["room_id"]].version)

    def _want_parents(self, event: Event) -> None:
        if event.depth - 1 <= self._book.rooms[event.room].depth:
            return
        for parent in event.parents:
            if not self._book.knows(parent):
                self._wanted.put(parent)


class Server(ThreadingHTTPServer):
    """HTTPS."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, peer: Peer) -> None:
        super().__init__(address, Handler)
        # The handshake is left to the thread of its connection, or one that stalls would keep all others out.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.peer = peer


class Handler(BaseHTTPRequestHandler):
    """The few requests that are answered."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S

    def do_GET(self) -> None:
        match urlsplit(self.path).path:
            case "/_matrix/key/v2/server":
                self._answer(200, self.server.peer.identity.published())
            case "/_matrix/federation/v1/version":
                self._answer(200, {"server": {"name": "rollout lab peer", "version": "1"}})
            case _:
                self._answer(404, {"errcode": "M_UNRECOGNIZED", "error": "this peer only listens"})

    def do_PUT(self) -> None:
        content = self._content()
        match urlsplit(self.path).path.split("/"):
            case [_, "_matrix", "federation", "v1", "send", _]:
                self.server.peer.take(content.get("pdus", []))
                self._answer(200, {})
            case [_, "join", room]:
                try:
                    self.server.peer.join(unquote(room))
                except (RefusedError, OSError, http.client.HTTPException) as error:
                    self._answer(502, {"errcode": "M_UNKNOWN", "error": str(error)})
                else:
                    self._answer(200, {})
            case _:
                self._answer(404, {"errcode": "M_UNRECOGNIZED", "error": "this peer only listens"})

    def do_POST(self) -> None:
        self._content()
        self._answer(404, {"errcode": "M_UNRECOGNIZED", "error": "this peer only listens"})

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""

    def _content(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BYTES_MAX:
            raise ValueError(f"{length} bytes are too many")
        content: dict[str, Any] = json.loads(self.rfile.read(length) or b"{}")
        return content

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def identity(name: str, path: Path) -> Identity:
    """Read the signing key, or make one."""
    if not path.exists():
        path.touch(mode=0o600)
        with path.open("w") as file:
            write_signing_keys(file, [generate_signing_key("peer")])
    with path.open() as file:
        return Identity(name, read_signing_keys(file)[0])


def tls(directory: Path, address: str) -> ssl.SSLContext:
    """Read the certificate and its key, or make them."""
    certificate, private = directory / "certificate.pem", directory / "certificate.key"
    if not certificate.exists():
        private.touch(mode=0o600)
        key = ec.generate_private_key(ec.SECP256R1())
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        certificate.write_bytes(_self_signed(key, address).public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context


def _self_signed(key: ec.EllipticCurvePrivateKey, address: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rollout lab peer")])
    now = dt.datetime.now(dt.UTC)
    # It is its own authority, and has all that a strict reader of certificates asks of one.
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=Path, help="where its keys are, and received.jsonl")
    parser.add_argument("address", help="of this machine, as a number")
    parser.add_argument("port", type=int)
    parser.add_argument("homeserver", help="its name")
    parser.add_argument("url", help="where it answers federation requests")
    chosen = parser.parse_args()
    chosen.directory.mkdir(exist_ok=True)
    ours = identity(f"{chosen.address}:{chosen.port}", chosen.directory / "signing.key")
    peer = Peer(ours, Homeserver(chosen.homeserver, chosen.url, ours), Book(chosen.directory / "received.jsonl"))
    threading.Thread(target=peer.fetch_for_ever, name="fetch", daemon=True).start()
    Server((chosen.address, chosen.port), tls(chosen.directory, chosen.address), peer).serve_forever()


if __name__ == "__main__":
    main()
