"""What the command line says of errors that no command has foreseen."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raylora import cli
from raylora.errors import ConfigError


def said(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """What `raylora` prints when a command meets an error."""

    def meet(**more: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", meet)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "No space left on device: lora.safetensors; free some space"),
        (errno.EDQUOT, "Disk quota exceeded: lora.safetensors; free some space, or have your quota raised"),
        (errno.EACCES, "Permission denied: lora.safetensors; let your user read and write it"),
        (errno.EROFS, "Read-only file system: lora.safetensors; mount it so that it can be written"),
    ],
)
def test_a_fault_of_the_disk_is_told_with_the_mend_and_called_no_bug(
    number: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(number, "in a library's words", "lora.safetensors")
    assert said(error, monkeypatch, capsys) == f"raylora: failed: {message}\n"


@pytest.mark.parametrize("error", [KeyError("number"), OSError(errno.EBADF, "bad")])
def test_what_nobody_foresaw_is_called_a_bug_and_its_traceback_kept(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(error, monkeypatch, capsys)
    assert "This is a bug in raylora" in told
    file = Path(told.split("report it with ")[1].strip())
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()


def test_no_password_is_told_or_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(KeyError("http://user:hunter2@host"), monkeypatch, capsys)
    file = Path(told.split("report it with ")[1].strip())
    assert "http://***@host" in told
    assert "hunter2" not in told + file.read_text()
    file.unlink()


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP])
def test_a_path_that_can_not_be_is_the_users_to_mend(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(OSError(number, "in a library's words", "bad"), monkeypatch, capsys, status=2)
    assert told.startswith("raylora: error: bad: ")


def test_a_message_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(ConfigError("bad\x1b]0;title\x07"), monkeypatch, capsys, status=2)
    assert told == "raylora: error: bad\\x1b]0;title\\x07\n"
