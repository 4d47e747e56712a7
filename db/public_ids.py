"""Public ids: Relay global ids, base64 of "Type:number". Internal ids are numbers.

Source of the form: the Relay Global Object Identification specification, which requires opaque ids.
"""

from __future__ import annotations

import base64
import binascii


def encode(type_name: str, number: int) -> str:
    """Encode the public id of an object."""
    return base64.b64encode(f"{type_name}:{number}".encode()).decode()


def encode_member(attempt_id: int, rank: int) -> str:
    """Encode the name of a member for its engine. That of rank 0 is the attempt's id, as when there were no others."""
    if rank == 0:
        return encode("Attempt", attempt_id)
    return base64.b64encode(f"Member:{attempt_id}:{rank}".encode()).decode()


def decode_member(name: str) -> tuple[int, int]:
    """Decode the name of a member into the attempt's number and the rank. Raises ValueError for anything else."""
    try:
        type_name, *numbers = base64.b64decode(name, validate=True).decode().split(":")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a member's name") from error
    if len(numbers) != {"Attempt": 1, "Member": 2}.get(type_name):
        raise ValueError("not a member's name")
    if not all(each.isascii() and each.isdecimal() and len(each) <= 18 for each in numbers):
        raise ValueError("not a member's name")
    return int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 0


def decode(public_id: str) -> tuple[str, int]:
    """Decode a public id into the type's name and the number. Raises ValueError for anything else."""
    try:
        type_name, _, number = base64.b64decode(public_id, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a public id") from error
    if not type_name or not (number.isascii() and number.isdecimal()) or len(number) > 18:
        raise ValueError("not a public id")
    return type_name, int(number)
