"""Commands for another machine's shell: what is sent, word for word, and how its answer is taken apart."""

import subprocess
from pathlib import Path

import pytest

from rollout.adapters.remote_commands import Argv, as_root, may_as_root, said_in, script, so_that

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


def test_only_the_last_one_reads_what_is_sent() -> None:
    """However many there are; what is sent is in nobody's list of processes."""
    done = subprocess.run(
        ["sh", "-c", script([("cat",), ("cat",)], MARK, fed=True)],
        input="it's secret\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    said = said_in(done.stdout, 2, MARK)
    assert said is not None
    assert [it.out for it in said] == ["", "it's secret\n"]


@pytest.mark.parametrize("wanted", [word for word in NASTY if not word.endswith("\n")])
@pytest.mark.parametrize("now", ["before", "wanted", None])
def test_what_is_so_already_is_not_done_again(tmp_path: Path, wanted: str, now: str | None) -> None:
    """And what is done is seen to be so; every word arrives as it is."""
    state, count = tmp_path / "it's state", tmp_path / "count"
    if now is not None:
        state.write_text(wanted if now == "wanted" else now)
    act = ("sh", "-c", 'echo >>"$2"; printf %s "$1" >"$0"', str(state), wanted, str(count))
    done = subprocess.run(so_that(("cat", str(state)), wanted, act), capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert (state.read_text(), count.exists()) == (wanted, now != "wanted")


def test_what_is_done_and_not_so_has_failed(tmp_path: Path) -> None:
    """Whatever its status was; one that failed is told by its own status, and one that nobody can tell of by that of who should."""
    state = tmp_path / "state"
    state.write_text("1.0")
    says = ("cat", str(state))
    told = {
        act: subprocess.run(so_that(says, "2.0", act), capture_output=True, text=True, timeout=20, check=False)
        for act in (("true",), ("sh", "-c", "echo no; exit 7"), ("rm", str(state)))
    }
    (untrue, failed, gone) = told.values()
    assert (untrue.returncode, untrue.stdout) == (1, "it is done, and now it says that it is 1.0, not 2.0\n")
    assert (failed.returncode, failed.stdout) == (7, "no\n")
    assert (gone.returncode, gone.stdout) == (1, "\nwhat it is now can't be told\n")


def test_what_is_so_may_be_done_in_any_case(tmp_path: Path) -> None:
    count = tmp_path / "count"
    for always, times in ((False, 0), (True, 1), (True, 2)):
        done = subprocess.run(
            so_that(("echo", "2.0"), "2.0", ("sh", "-c", 'echo >>"$0"', str(count)), always=always),
            capture_output=True,
            timeout=20,
            check=True,
        )
        assert done.stdout == b""
        assert (count.read_text().count("\n") if count.exists() else 0) == times
