"""Commands for another machine's shell: what is sent, word for word, and how its answer is taken apart."""

import subprocess

import pytest

from rollout.adapters.remote_commands import Argv, as_root, may_as_root, said_in, script

MARK = "d00f"
# Whoever is called so, in a unit's name or a path, is a word and nothing else.
NASTY = ("a b", "it's", '"', "$(touch pwned)", "`id`", "; rm -rf x", "*", "~", "\\", "\n", "", "-n", "ä", f"\n{MARK} 0\n")


def _ran(commands: list[Argv], shell: str = "sh") -> str:
    return subprocess.run([shell, "-c", script(commands, MARK)], capture_output=True, text=True, timeout=20, check=True).stdout


def test_a_script_word_for_word() -> None:
    assert script([("systemctl", "show", "a b.service")], MARK) == (
        """exec sh -c 'export LC_ALL=C.UTF-8; echo d00f; systemctl show '"'"'a b.service'"'"' 2>&1 </dev/null; """
        """printf '"'"'\\n%s %d\\n'"'"' d00f $?'"""
    )


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_every_word_arrives_as_it_is(shell: str) -> None:
    commands: list[Argv] = [("printf", "%s|", *NASTY[:-1]), ("printf", "%s", NASTY[-2])]
    said = said_in(_ran(commands, shell), len(commands), MARK)
    assert said is not None
    assert [it.out for it in said] == ["".join(f"{word}|" for word in NASTY[:-1]), NASTY[-2]]


def test_each_has_its_own_status_and_all_it_said() -> None:
    """One that fails doesn't keep the next from being done; what it says on stderr is there, and nothing waits for input."""
    commands: list[Argv] = [("false",), ("sh", "-c", "echo out; echo err >&2; exit 7"), ("cat",), ("not-there",), ("echo", "last")]
    said = said_in("hello from .bashrc\n" + _ran(commands), len(commands), MARK)
    assert said is not None
    assert [it.status for it in said] == [1, 7, 0, 127, 0]
    assert [it.out for it in said if it.status != 127] == ["", "out\nerr\n", "", "last\n"]
    assert "not found" in said[3].why


@pytest.mark.parametrize(
    "output", ["", "hello\n", "d00f\n", "d00f\nout\nd00f 0", "d00f\nout\nd00f 0\n\nd00f x\n", "d00f\na\nd00f 0\n\nd00f 0\n\nd00f 0\n"]
)
def test_what_is_not_whole_is_no_answer(output: str) -> None:
    """Cut off anywhere, or with more in it than was asked: nothing of it is believed."""
    assert said_in(output, 2, MARK) is None


def test_sudo_never_asks() -> None:
    argv = ("/usr/bin/systemctl", "stop", "a.service")
    assert as_root(argv, "deploy") == ("sudo", "-n", "--", *argv)
    assert may_as_root(argv, "deploy") == ("sudo", "-n", "-l", "--", *argv)
    assert (as_root(argv, "root"), may_as_root(argv, "root")) == (argv, ("true",))
