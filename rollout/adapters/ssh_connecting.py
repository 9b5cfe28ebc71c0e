"""
Connecting to a host, and saying why it didn't come to that.

Fabric accepts every unknown host key; here an unknown, changed or revoked one is refused, and who refuses says what to do.
"""

import base64
import binascii
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic  # noqa: TID251  (how long an answer may take, whatever clock a rollout goes by)
from typing import Any

import paramiko
from fabric import Config, Connection

from rollout.adapters.known_hosts import KnownKeys, fingerprint, keys_of, name_of
from rollout.adapters.ssh_hosts import HostEntry
from rollout.model.errors import DriverError, PermanentDriverError, TransientDriverError

# What paramiko says on its own account is in the errors here, too.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _HostKeyRefusedError(Exception):
    def __init__(self, key: paramiko.PKey) -> None:
        super().__init__()
        self.kind = key.get_name()
        self.base64 = key.get_base64()
        self.fingerprint = fingerprint(key.asbytes())


class _Strict(paramiko.MissingHostKeyPolicy):
    """Is asked about every key, because the client itself is told of none."""

    def __init__(self, known: KnownKeys) -> None:
        self._known = known

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client, hostname
        if (key.get_name(), key.get_base64()) not in self._known.trusted:
            raise _HostKeyRefusedError(key)


class Way:
    """The way to a host: makes connections, and knows what to call it."""

    def __init__(self, name: str, entry: HostEntry, timeout_s: float) -> None:
        self.entry = entry
        self.where = f"host {name} ({entry.spelled()})"
        self.by_hand = f"ssh -p {entry.port} {entry.user}@{entry.address} true"
        self.timeout_s = timeout_s

    def connect(self, gateway: Connection | None) -> Connection:
        """Make a new connection, through *gateway* if there is one. Raises DriverError."""
        entry = self.entry
        known = self._known()
        if entry.identity_file is not None:
            self._can_be_read(entry.identity_file.expanduser())
        keywords = {
            "key_filename": [] if entry.identity_file is None else [str(entry.identity_file.expanduser())],
            "look_for_keys": entry.identity_file is None,
            "allow_agent": entry.agent,
            "banner_timeout": self.timeout_s,
            "auth_timeout": self.timeout_s,
            "channel_timeout": self.timeout_s,
            "timeout": self.timeout_s,
            "transport_factory": _preferring(known.kinds()),
        }
        # Lazy: neither a fabric.yaml nor an ~/.ssh/config of whoever runs this decides where commands go.
        connection = Connection(
            entry.address, user=entry.user, port=entry.port, config=Config(lazy=True), gateway=gateway, connect_kwargs=keywords
        )
        connection.client.set_missing_host_key_policy(_Strict(known))
        began_s = monotonic()
        try:
            connection.open()
        except Exception as error:
            late = monotonic() - began_s >= self.timeout_s
            reason = self._why_not(error, connection.client.get_transport(), known, late=late)
            connection.client.close()
            raise reason from error
        return connection

    def _known(self) -> KnownKeys:
        files = self.entry.known_hosts_files()
        try:
            return keys_of(name_of(self.entry.address, self.entry.port), files)
        except OSError as error:
            raise PermanentDriverError(
                "known_hosts can't be read", where=self.where, why=str(error), remedy="a file you can read"
            ) from error

    def _can_be_read(self, identity_file: Path) -> None:
        try:
            identity_file.open("rb").close()
        except OSError as error:
            raise PermanentDriverError(
                "the key file can't be read", where=self.where, why=str(error), remedy="identity_file: a private key that you can read"
            ) from error

    def _why_not(self, error: Exception, transport: paramiko.Transport | None, known: KnownKeys, *, late: bool) -> DriverError:
        """Say why there is no connection. By what it is, never by what it says."""
        match error:
            case _HostKeyRefusedError():
                return self._refused_key(error, known)
            case paramiko.ssh_exception.IncompatiblePeer():
                what = "host and this machine know no common way to encrypt"
                return PermanentDriverError(what, where=self.where, why=str(error), remedy="a newer sshd there")
            case paramiko.PasswordRequiredException():
                what, remedy = "the key file has a passphrase, which nobody is asked for here", "ssh-add it: the agent's keys are tried"
                return PermanentDriverError(what, where=self.where, remedy=remedy)
            case socket.gaierror():
                remedy = "address: as `ssh` finds it; ~/.ssh/config is not read"
                return TransientDriverError("the host's name can't be looked up", where=self.where, why=str(error), remedy=remedy)
            case OSError():
                return TransientDriverError("the host can't be reached", where=self.where, why=str(error), remedy=self.by_hand)
        # It is there, shows the right key, and has not let us in.
        shown = transport is not None and transport.is_active() and transport.initial_kex_done
        if shown and transport is not None and not transport.is_authenticated() and not late:
            tried = "the key file" if self.entry.identity_file is not None else "the keys in ~/.ssh"
            tried += " and the agent's" if self.entry.agent else ""
            return PermanentDriverError(
                f"the host doesn't let {self.entry.user} in",
                where=self.where,
                why=f"tried: {tried} ({error})",
                remedy=f"put the public key into {self.entry.user}'s authorized_keys there, or name another identity_file",
            )
        what = "the host broke off while we connected"
        return TransientDriverError(what, where=self.where, why=str(error) or type(error).__name__, remedy=self.by_hand)

    def _refused_key(self, error: _HostKeyRefusedError, known: KnownKeys) -> PermanentDriverError:
        shown = f"it shows {error.kind} {error.fingerprint}"
        name = name_of(self.entry.address, self.entry.port)
        file = self.entry.known_hosts_files()[0]
        compare = "compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` at the host's own console; if it is right,"
        if (error.kind, error.base64) in known.revoked:
            return PermanentDriverError(
                "the host shows a key that was revoked", where=self.where, why=shown, remedy="find out who answers there"
            )
        if known.trusted:
            ours = ", ".join(sorted(_spelled(key) for key in known.trusted))
            why = f"{shown}; known are {ours}\nsomebody else may be answering in its place"
            remedy = f"{compare} remove the old one (`ssh-keygen -R '{name}' -f {file}`) and add the new one"
            return PermanentDriverError("the host's key has changed", where=self.where, why=why, remedy=remedy)
        why = f"{shown}; {' and '.join(str(path) for path in self.entry.known_hosts_files())} has no key of {name}"
        remedy = f"{compare} add it: `ssh-keyscan -p {self.entry.port} {self.entry.address} >> {file}`"
        return PermanentDriverError("the host's key is not known", where=self.where, why=why, remedy=remedy)


def _spelled(key: tuple[str, str]) -> str:
    kind, encoded = key
    try:
        return f"{kind} {fingerprint(base64.b64decode(encoded))}"
    except binascii.Error:
        return f"{kind} that is no key"


def _preferring(kinds: Sequence[str]) -> Callable[..., paramiko.Transport]:
    """Ask for a key of a kind that is known: a host has several, and the others can't be told from an impostor's."""
    wanted = [name for kind in kinds for name in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))]

    def make(sock: socket.socket, **options: Any) -> paramiko.Transport:  # noqa: ANN401  (as paramiko hands them on)
        if isinstance(sock, socket.socket):
            # A command is a few small packets: waiting to fill one (Nagle) costs 40 ms each time.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock, **options)
        offered = transport.get_security_options()
        usual = offered.key_types
        offered.key_types = [*(name for name in wanted if name in usual), *(name for name in usual if name not in wanted)]
        return transport

    return make
