"""What messages may show."""

from __future__ import annotations

import pytest

from raylora.redaction import LONGEST_LINE, cleared, holds_secret, is_text, one_line, printable, redacted, shown

SECRET = "hunter2"


@pytest.mark.parametrize(
    "uri",
    [
        f"https://user:{SECRET}@host:5000/path",
        f"http://{SECRET}@host",
        f"http://user:a@{SECRET}@host",
        f"postgresql://user:{SECRET}@host/db",
        f"mysql+pymysql://user:{SECRET}@host/db?charset=utf8",
        f"postgresql://host/db?user=a&password={SECRET}",
        f"postgresql://host/db?sslpassword={SECRET}#end",
        f"https://host/?access_token={SECRET}",
        f"nonsense://user:{SECRET}@[::1",
        f"user:{SECRET}@host/db",
    ],
)
def test_passwords_and_tokens_are_found_and_hidden(uri: str) -> None:
    assert holds_secret(uri)
    assert SECRET not in redacted(uri)
    assert "host" in redacted(uri) or "::1" in redacted(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000",
        "sqlite:////home/me@work/mlflow.db",
        "postgresql://user@host/db",
        "postgresql://host:5432/db?sslmode=require",
        "C:\\models\\mine",
        "file:///tmp/x",
    ],
)
def test_what_holds_none_stays(uri: str) -> None:
    assert not holds_secret(uri)


def test_every_uri_in_a_text_is_redacted() -> None:
    told = redacted(f"tracking URI http://u:{SECRET}@a: gone (HTTPConnectionPool https://v:{SECRET}@b/x)")
    assert told == "tracking URI http://***@a: gone (HTTPConnectionPool https://***@b/x)"


def test_a_long_text_takes_no_time_to_look_through() -> None:
    """A pattern that looks back from every letter would take minutes."""
    assert redacted("a" * 10**6 + "://" * 10**4).startswith("aaa")


def test_nothing_steers_the_terminal() -> None:
    assert printable("a\x1b]0;title\x07\tb\nc") == "a\\x1b]0;title\\x07\tb\nc"
    assert printable("\udcff\u202e\r") == "\\udcff\\u202e\\x0d"
    assert one_line("a\nraylora: error: faked") == "a\\x0araylora: error: faked"
    assert printable("плохо 悪い 😈") == "плохо 悪い 😈"


def test_a_line_of_a_message_has_an_end() -> None:
    first, second = shown("a" * 10_000 + "\nb").split("\n")
    assert (len(first), second) == (LONGEST_LINE + 1, "b")


def test_names_are_text() -> None:
    assert is_text("a b – ü 😈")
    assert not any(map(is_text, ("a\0", "a\n", "\udcff", "\x1b[31m")))


def test_what_is_no_character_makes_room_for_a_blank() -> None:
    assert cleared("a\0b \x1b[31m\ud83d c") == "a b [31m c"
    assert cleared("  as  it is ") == "  as  it is "
