from array import array
from collections.abc import Callable

def shorten(
    image: bytes, places: array[int], other: Callable[[int], float | None]
) -> list[float | None]: ...
def encode(
    image: bytes,
    members: bytes,
    names: bytes,
    pieces: list[bytes | None],
    other: Callable[[int], bytes | None],
) -> tuple[bytes, list[int]]: ...
