"""Text as a terminal would show it: escape sequences, carriage returns and backspaces are carried out, not kept.

Of escape sequences only colours stay, well-formed and of bounded length (SGR, ECMA-48 8.3.117), for the log; `clean`
removes them for the readers. A line that was redrawn (a progress bar) begins with one carriage return here, so that
readers recognise a bar before other text; `plain` takes it off.
"""

from __future__ import annotations

import re

# ECMA-48: CSI sequences, OSC and other strings up to their terminator, two-byte escapes; a lone escape at the end.
_ESCAPES = re.compile(
    rb"(\x1b\[[0-9;:]{0,48}m)|\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x1b"
)
_COLOURS = re.compile(rb"\x1b\[[0-9;:]*m")
_CUT_COLOUR = re.compile(rb"\x1b(?:\[[0-9;:]*)?\Z")
_LINE_ENDS = re.compile(rb"\r+\n")
_REDRAWN = re.compile(rb"[^\n]*\r+([^\n\r]+)")
_BLANK_END = re.compile(
    rb"\r((?:[ \t]|\x1b\[[0-9;:]*m)*)(?=\n|\Z)"
)  # a bar that was wiped out, or the return before its next state


def drawn(block: bytes) -> bytes:
    """Return a block of lines with colours, after all other escapes; a redrawn line as a return and its last state."""
    if b"\x1b" in block:
        block = _ESCAPES.sub(rb"\1", block)
    if b"\b" in block:
        block = b"\n".join(_backspaced(line) if b"\b" in line else line for line in block.split(b"\n"))
    if b"\r" in block:
        block = _LINE_ENDS.sub(b"\n", block)
        if b"\r" in block:
            block = _REDRAWN.sub(rb"\r\1", _BLANK_END.sub(_colours_of, block))
    return block


def clean(block: bytes) -> bytes:
    """Return a drawn block without colours."""
    return _COLOURS.sub(b"", block) if b"\x1b" in block else block


def cut(line: bytes, length: int) -> bytes:
    """Return the beginning of a drawn line, without a part of a colour at its end."""
    return _CUT_COLOUR.sub(b"", line[:length])


def plain(block: bytes) -> bytes:
    """Return a drawn block without the marks of redrawn lines."""
    return block.replace(b"\r", b"") if b"\r" in block else block


def _backspaced(line: bytes) -> bytes:
    """Carry out backspaces: the cursor goes back, what follows overwrites. A run of them is a return (Keras).

    Text that is overwritten in part loses its colours, which have no width of their own.
    """
    if b"\x1b" in line and b"\b" in line[line.rstrip(b"\r\b \t").rfind(b"\r") + 1 :].rstrip(b"\b"):
        line = clean(line)
    parts = re.split(rb"(\x08+)", line)
    shown = bytearray()
    cursor = 0
    for part in parts:
        if part.startswith(b"\x08"):
            cursor = max(cursor - len(part), 0)
        elif b"\r" in part:  # what returns anyway need not be laid over
            del shown[cursor:]
            shown += part
            cursor = len(shown)
        else:
            shown[cursor : cursor + len(part)] = part
            cursor += len(part)
    return bytes(shown)


def _colours_of(found: re.Match[bytes]) -> bytes:
    """Keep the colours of what was wiped out: a reset among them ends those of the text before."""
    return b"".join(_COLOURS.findall(found[1]))
