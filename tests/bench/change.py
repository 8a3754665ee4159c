"""What the change filter costs, CPU: a scan of which every value has moved, within its deadband
where there is one. The baseline is decoding the same scan, unfiltered.
"""

from __future__ import annotations

from services.s7.change import ChangeFilter
from services.s7.decode import Record
from services.s7.field import Field
from tests.bench.decode import IMAGES, REALS, over, reals
from tests.bench.result import Options, Result, compare


def bench(options: Options) -> list[Result]:
    """With and without deadbands."""
    rounds = options.rounds or (3 if options.quick else 7)
    fields = [Field(f"real{i}", "REAL", byte=4 * i) for i in range(REALS)]
    images = [reals(REALS, True) for _ in range(IMAGES)]
    record = Record(fields)
    names = {
        "no deadbands": ChangeFilter(fields, 1e9),
        "every field with a deadband": ChangeFilter(
            [Field(f.name, f.type, byte=f.byte, deadband={"abs": 1e6}) for f in fields], 1e9
        ),
    }
    results = []
    for name, changes in names.items():

        def filtered(image: bytes, changes: ChangeFilter = changes) -> bool:
            changed = record.changed(image)
            return changes.passes(dict(record.values), {}, bool(changed), 0.0)

        filtered(images[0])
        assert filtered(images[1]) == (name == "no deadbands")
        base = {"decode alone": over(record.changed, images, 60)}
        results += compare("change", f"1,000 REALs, all changed, {name}",
                           over(filtered, images, 60), base, rounds)  # fmt: skip
    return results
