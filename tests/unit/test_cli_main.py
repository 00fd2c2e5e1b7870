"""What the command line says of errors that no command has foreseen."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raylora import cli


def said(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `raylora` prints when a command meets an error."""

    def meet(**more: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", meet)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
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
    file.unlink()
