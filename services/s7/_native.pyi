from array import array
from collections.abc import Callable

def shorten(
    image: bytes, places: array[int], other: Callable[[int], float | None]
) -> list[float | None]: ...
