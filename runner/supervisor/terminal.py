"""Text as a terminal would show it: escape sequences, carriage returns and backspaces are carried out, not kept.

A line that was redrawn (a progress bar) begins with one carriage return here, so that readers recognise a bar before
other text; `plain` takes it off.
"""

from __future__ import annotations

import re

# ECMA-48: CSI sequences, OSC and other strings up to their terminator, two-byte escapes; a lone escape at the end.
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x1b")
_LINE_ENDS = re.compile(rb"\r+\n")
_REDRAWN = re.compile(rb"[^\n]*\r+([^\n\r]+)")
_BLANK_END = re.compile(rb"\r[ \t]*(?=\n|\Z)")  # a bar that was wiped out, or the return before its next state


def drawn(block: bytes) -> bytes:
    """Return a block of lines after all escapes; a redrawn line as a carriage return and its last state."""
    if b"\x1b" in block:
        block = _ESCAPES.sub(b"", block)
    if b"\b" in block:
        block = b"\n".join(_backspaced(line) if b"\b" in line else line for line in block.split(b"\n"))
    if b"\r" in block:
        block = _LINE_ENDS.sub(b"\n", block)
        if b"\r" in block:
            block = _REDRAWN.sub(rb"\r\1", _BLANK_END.sub(b"", block))
    return block


def plain(block: bytes) -> bytes:
    """Return a drawn block without the marks of redrawn lines."""
    return block.replace(b"\r", b"") if b"\r" in block else block


def _backspaced(line: bytes) -> bytes:
    """Carry out backspaces: the cursor goes back, what follows overwrites. A run of them is a return (Keras)."""
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
