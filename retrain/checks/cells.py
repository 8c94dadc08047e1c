r"""The cells of a table, which come back exactly, whatever a spreadsheet does to them.

Characters that cannot be seen, bytes of a name that are no text and backslashes are escaped as in Python (`\n`, `\xa0`,
`\udce4`, `\\`), and so is the first character of a cell that would be taken for a formula, a number or a date
(`\x3d1+1.png` is `=1+1.png`).
"""

import re

# What spreadsheets compute, and what they take for a number, a date or a truth value and write in another way.
# After a semicolon as well: a spreadsheet that separates by it may be given commas.
_FORMULA = re.compile(r"(?:^|(?<=;))[=+\-@\uff1d\uff0b\uff0d\uff20]")
_MONTH = (
    "(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?|dec(ember)?)"
)
_VALUE = re.compile(
    rf"[0-9][0-9 .,:/e%-]*|true|false|[0-9]+[ ./-]*{_MONTH}([ ./-]*[0-9]+)?|{_MONTH}[ ./-]*[0-9]+", re.IGNORECASE
)
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # comes back as it was
_ESCAPE = re.compile(r"\\(?:(\\)|n|r|t|x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4}))")
_LETTERS = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def to_cell(text: str, is_name: bool) -> str:
    """Return the cell for a text; what is no name may come back as a spreadsheet shows it."""
    escaped = "".join(_LETTERS.get(sign) or (sign if sign.isprintable() else _escape(sign)) for sign in text)
    escaped = _FORMULA.sub(lambda match: _escape(match[0]), escaped)
    if is_name and (text[:1] in (" ", "'") or (_VALUE.fullmatch(text) and not _WHOLE_NUMBER.fullmatch(text))):
        escaped = _escape(escaped[0]) + escaped[1:]
    # Blanks at the ends are lost in spreadsheets, and are no part of what people type.
    return f"{escaped[:-1]}{_escape(' ')}" if is_name and escaped.endswith(" ") else escaped


def _escape(sign: str) -> str:
    number = ord(sign)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def from_cell(cell: str) -> str:
    """Return what a cell stands for; a backslash that escapes nothing is one that a person typed."""
    return _ESCAPE.sub(_character, cell.strip())


def _character(match: re.Match[str]) -> str:
    number = match[2] or match[3] or match[4]
    return chr(int(number, 16)) if number else {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}[match[0][1]]
