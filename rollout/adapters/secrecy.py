"""
What shall stay out of messages.

Secrets are references (`env:NAME`, `file:PATH`), but a file that is wrong may hold one all the same: what it is can't be known then, so
that goes by where it stands. Of the drivers that reach something with a password, everything but a few settings counts as one.
"""

import re

Path = tuple[str | int, ...]

# What is said in place of one.
HIDDEN = "…"
_NAME = re.compile(r"password|passwd|secret|token|dsn|key", re.IGNORECASE)
_REFERENCE = re.compile(r"(?:env|file):\S*\Z")
# These drivers are given places on this machine and addresses; what they show at a door is called a password or a token.
_WITHOUT = frozenset({"workers_driver", "releases_driver", "traffic_driver", "metrics_driver", "history_driver", "ledger_driver"})
# … but for the address at which the ledger's dead-man calls somebody: of its settings these are none.
_OF_THE_LEDGER = frozenset({"driver", "path", "readmit_after_s", "host", "hosts", "python", "connect_timeout_s"})
# The others, also when somebody has misspelt them.
_SECTION = re.compile(r"driver|notif|hook|database|warm|probe", re.IGNORECASE)
_OPEN = frozenset({"driver", "user"})
_PLAIN = re.compile(r"[@\w.:-]{1,40}\Z")
# What a person names: a worker called keys1 is no key.
_NAMED = frozenset({"workers", "pools"})
_CREDENTIALS = re.compile(r"(://)[^/\s\"']*@")
_ASSIGNED = re.compile(r"((?:password|passwd|secret|token)\w*\s*=\s*)(?:'[^']*'|\S+)", re.IGNORECASE)


def is_reference(text: str) -> bool:
    """Tell whether it only says where a secret is."""
    return _REFERENCE.match(text) is not None


def without_credentials(text: str) -> str:
    """Leave out what stands before the host of an address, and what is assigned to a password."""
    return _ASSIGNED.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(rf"\1{HIDDEN}@", text))


def plain_name(text: str) -> str:
    """Return the name of a driver, unless it can be none."""
    return text if _PLAIN.match(text) and "://" not in text else HIDDEN


def is_secret_section(path: Path) -> bool:
    """Tell whether *path* leads to a section of the file whose settings are secrets unless they are known not to be."""
    return len(path) == 1 and _SECTION.search(str(path[0])) is not None and path[0] not in _WITHOUT


def is_secret(path: Path) -> bool:
    """Tell whether what stands at *path* may be a secret."""
    if len(path) > 1 and path[0] == "ledger_driver" and path[1] not in _OF_THE_LEDGER:
        return True
    names = [part for part in path if isinstance(part, str)]
    own = names[2:] if names[:1] and names[0] in _NAMED else names
    if any(map(_NAME.search, own)):
        return True
    return is_secret_section(path[:1]) and (len(path) == 1 or path[1] not in _OPEN)
