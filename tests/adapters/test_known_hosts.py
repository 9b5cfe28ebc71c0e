"""known_hosts as OpenSSH writes it."""

from pathlib import Path

import pytest

from rollout.adapters.known_hosts import keys_of, name_of

# `ssh-keygen -H` wrote these for matrix1.example.org and [10.0.0.9]:2222.
HASHED = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg="


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("host ssh-ed25519 KEY comment", "host"),
        ("other,HOST ssh-ed25519 KEY", "host"),
        ("*.example.org ssh-ed25519 KEY", "a.example.org"),
        ("10.0.0.? ssh-ed25519 KEY", "10.0.0.7"),
        ("[10.0.0.9]:2222 ssh-ed25519 KEY", "[10.0.0.9]:2222"),
        (f"{HASHED} ssh-ed25519 KEY", "192.168.1.61"),
    ],
)
def test_a_host_is_found(tmp_path: Path, line: str, name: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"# a comment\n\nnonsense\n{line}\n")
    assert keys_of(name, [tmp_path / "absent", file]).trusted == {("ssh-ed25519", "KEY")}
    assert keys_of("another", [file]).trusted == set()


@pytest.mark.parametrize(
    "line",
    [
        "#host ssh-ed25519 KEY",
        "*,!host ssh-ed25519 KEY",
        "@cert-authority host ssh-ed25519 KEY",
        "[host]:2222 ssh-ed25519 KEY",
        "[host] ssh-ed25519 KEY",
        "|1|nonsense|nonsense ssh-ed25519 KEY",
        "|1|AAAA ssh-ed25519 KEY",
        "hos ssh-ed25519 KEY",
        "host ssh-ed25519",
    ],
)
def test_a_host_is_not_found(tmp_path: Path, line: str) -> None:
    """Passed over, commented out, excepted, at another port, or not to be read."""
    file = tmp_path / "known_hosts"
    file.write_text(line + "\n")
    assert keys_of("host", [file]).trusted == set()


def test_a_revoked_key_is_trusted_nowhere(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("host ssh-ed25519 OLD\nhost ssh-ed25519 NEW\nhost ssh-rsa R\n")
    second.write_text("@revoked * ssh-ed25519 OLD\n")
    keys = keys_of("host", [first, second])
    assert keys.trusted == {("ssh-ed25519", "NEW"), ("ssh-rsa", "R")}
    assert keys.revoked == {("ssh-ed25519", "OLD")}
    assert keys.kinds() == ("ssh-ed25519", "ssh-rsa")


def test_names_with_and_without_a_port() -> None:
    assert (name_of("host", 22), name_of("host", 2222), name_of("::1", 2222)) == ("host", "[host]:2222", "[::1]:2222")
