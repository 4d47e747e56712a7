"""Arrays of numbers as the server's wire bytes, which numpy maps without a Python object for each number.

`array_send` writes an array of one dimension as 20 bytes (dimensions, whether it has nulls, type, length, lower bound)
and then each element with its length before it, all of them big-endian (src/backend/utils/adt/arrayfuncs.c). Without
their headers arrays can be joined: the elements of all of them follow one another.

numpy is imported with the first array: it is a tenth of what the scheduler would load at its start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER_BYTES = 20
ELEMENT_BYTES = 4 + 8


def length(array: bytes) -> int:
    """Return the number of elements of an array of bigint or float8, with its header."""
    return max(len(array) - HEADER_BYTES, 0) // ELEMENT_BYTES


def sent(column: str) -> str:
    """Write the expression that sends an array without its header."""
    return f"substr(array_send({column}), {HEADER_BYTES + 1})"


def joined(arrays: Iterable[bytes]) -> bytes:
    """Join arrays, each with its header."""
    return b"".join([array[HEADER_BYTES:] for array in arrays])


def steps_in(elements: bytes) -> NDArray[np.int64]:
    """Map elements of bigint, (n,)."""
    import numpy as np

    return _mapped(elements, ">i8").astype(np.int64)


def values_in(elements: bytes) -> NDArray[np.float64]:
    """Map elements of float8, (n,)."""
    import numpy as np

    return _mapped(elements, ">f8").astype(np.float64)


def _mapped(elements: bytes, kind: str) -> NDArray[np.void]:
    import numpy as np

    return np.frombuffer(elements, [("length", ">i4"), ("element", kind)])["element"]
