"""
Which keys a host may show, from files as OpenSSH writes them (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

Rejected: paramiko's own reader. It knows no `@revoked`, of several keys of one type it takes the first, and one bad line makes it give up.
Lines of a certificate authority are passed over: a host that is known by its certificate only is not known here.
"""

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HASHED = "|1|"
_FIELDS_MIN = 3
SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """(type, base64) of the keys that a host may show, and of those that nobody may show any more."""

    trusted: frozenset[tuple[str, str]]
    revoked: frozenset[tuple[str, str]]

    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted({kind for kind, _ in self.trusted}))


def name_of(address: str, port: int) -> str:
    """Return the name by which a host stands in such a file."""
    return address if port == SSH_PORT else f"[{address}]:{port}"


def keys_of(name: str, files: Iterable[Path]) -> KnownKeys:
    """Read what is known of a host. A file that isn't there says nothing. Raises OSError for one that can't be read."""
    trusted, revoked = set[tuple[str, str]](), set[tuple[str, str]]()
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
            if len(fields) < _FIELDS_MIN or fields[0].startswith("#") or marker not in {"", "@revoked"}:
                continue
            if _names(fields[0], name):
                (revoked if marker else trusted).add((fields[1], fields[2]))
    return KnownKeys(frozenset(trusted - revoked), frozenset(revoked))


def fingerprint(key: bytes) -> str:
    """Return it as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _names(patterns: str, name: str) -> bool:
    if patterns.startswith(_HASHED):
        return _is_hashed(patterns, name)
    named = False
    for pattern in patterns.split(","):
        # Brackets stand around an address with a port there, and mean nothing else.
        wanted = pattern.removeprefix("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(name.lower(), wanted.lower()):
            if pattern.startswith("!"):
                return False
            named = True
    return named


def _is_hashed(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.removeprefix(_HASHED).split("|"))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
