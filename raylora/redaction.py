"""What may be shown: text without passwords and tokens, and without characters that steer a terminal."""

from __future__ import annotations

import re
import unicodedata

HIDDEN = "***"
USER_PART = re.compile(r"(?P<scheme>[a-zA-Z][\w+.-]{0,40}://)[^/?#\s]{0,2000}@")
"""Name and password before a host. The last @ ends them: a password may hold one."""
USER_PART_ALONE = re.compile(r"^[^/?#\s:@]{0,200}:[^/?#\s]{0,2000}@")
"""The same without a scheme."""
KEY_PART = re.compile(r"(?P<scheme>\b(?:s3|gs)://)[^/\s@]{0,200}:[^\s'\"]{0,2000}@")
"""The same before a bucket: an access key's secret may hold slashes too."""
SECRET_QUERY = re.compile(
    r"(?P<name>[?&;][\w.%-]{0,40}(?:pass|pwd|token|secret|key|sig|credential)[\w.%-]{0,40}=)[^&;#\s'\"]+", re.I
)
HARMLESS = "\n\t"
LONGEST_LINE = 2000
"""Characters of a line: names and paths may be as long as somebody likes."""
NO_TEXT = ("Cc", "Cs")
"""Unicode's categories of control characters, and of halves of characters, which stand for bytes that are no UTF-8."""
STEERING = ("Cc", "Cf", "Cs")
"""Unicode's categories of control characters, of invisible ones (which turn a line's direction), and of half
characters, which stand for bytes that are no UTF-8."""

TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's classes of characters that turn a part of a line, which then reads as another than it is."""


def redacted(text: str) -> str:
    """The text without the users, passwords and tokens of any URI in it.

    A URI alone may lack its scheme: `user:password@host` is one too.
    """
    text = KEY_PART.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = USER_PART.sub(rf"\g<scheme>{HIDDEN}@", USER_PART_ALONE.sub(f"{HIDDEN}@", text))
    return SECRET_QUERY.sub(rf"\g<name>{HIDDEN}", text)


def holds_secret(uri: str) -> bool:
    """Whether a URI holds what nobody but its user may know.

    A user's name alone is none, as in `postgresql://user@host/db`, but to a web server it may be a token.
    """
    user = USER_PART.match(uri)
    is_secret = user is not None and (":" in user[0].partition("://")[2] or uri.lower().startswith("http"))
    return is_secret or bool(USER_PART_ALONE.match(uri)) or bool(SECRET_QUERY.search(uri))


def printable(text: str) -> str:
    """The text with characters that steer a terminal as escapes, such as \\x1b; line ends and tabs stay."""
    return "".join(_escaped(sign) if steers(sign) else sign for sign in text)


def one_line(text: str) -> str:
    """The same with line ends and tabs as escapes too: a name, which may hold anything."""
    return "".join(_escaped(sign) if steers(sign) or sign in HARMLESS else sign for sign in text)


def steers(sign: str) -> bool:
    """Whether a character is none to be seen: it moves the cursor, turns the line, or is half of one."""
    return sign not in HARMLESS and unicodedata.category(sign) in STEERING


def is_text(text: str) -> bool:
    """Whether there are only characters that every program can read and write, in one line."""
    return not any(unicodedata.category(sign) in NO_TEXT for sign in text)


def cleared(text: str) -> str:
    """The text without characters that are none, such as NUL: blanks are in their places."""
    if is_text(text):
        return text
    return " ".join("".join(" " if unicodedata.category(sign) in NO_TEXT else sign for sign in text).split())


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode() if not sign.isascii() else f"\\x{ord(sign):02x}"


def shown(text: str) -> str:
    """What a message may hold of anything that was given: redacted, printable, and in lines that can be read."""
    lines = (line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…" for line in redacted(text).split("\n"))
    return printable("\n".join(lines))


def copied(text: str) -> str:
    """What may be shown to be copied: redacted, whole, and with the invisible characters that words are made of.

    Joiners are such, in emoji and in Persian; what steers a terminal or turns a line is an escape here too.
    """
    return "".join(_escaped(sign) if _misleads(sign) else sign for sign in redacted(text))


def _misleads(sign: str) -> bool:
    return steers(sign) and (unicodedata.category(sign) in NO_TEXT or unicodedata.bidirectional(sign) in TURNING)
