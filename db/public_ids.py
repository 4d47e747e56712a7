"""Public ids: Relay global ids, base64 of "Type:number". Internal ids are numbers.

Source of the form: the Relay Global Object Identification specification, which requires opaque ids.
"""

from __future__ import annotations

import base64
import binascii


def encode(type_name: str, number: int) -> str:
    """Encode the public id of an object."""
    return base64.b64encode(f"{type_name}:{number}".encode()).decode()


def decode(public_id: str) -> tuple[str, int]:
    """Decode a public id into the type's name and the number. Raises ValueError for anything else."""
    try:
        type_name, _, number = base64.b64decode(public_id, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a public id") from error
    if not type_name or not (number.isascii() and number.isdecimal()) or len(number) > 18:
        raise ValueError("not a public id")
    return type_name, int(number)
