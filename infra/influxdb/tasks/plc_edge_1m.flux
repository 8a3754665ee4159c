// Rendered by `plc-edge infra render`. processo -> processo_1m.
import "date"

// Ten minutes back each time: a point may come that late and still be counted at once.
option task = {name: "plc_edge_1m", every: 1m, offset: 15s}

booleans = ["bomba_ligada", "contador_bom_flag", "contador_ruim_flag", "maquina_ligada", "pecas_boas", "pecas_ruim", "status_maquina"]
counters = ["contador_bom", "contador_ruim"]

// Whole windows only: half a minute would replace a whole one.
stop = date.truncate(t: now(), unit: 1m)
start = date.sub(d: 10m, from: stop)
// A value holds until the next one; what was true at `start` stands before it.
before = date.sub(d: 10m, from: start)

numbers =
    from(bucket: "processo")
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._field !~ /_txt$/)
        |> filter(fn: (r) => not contains(value: r._field, set: booleans))

reduced = (fn, suffix) =>
    numbers
        |> aggregateWindow(every: 1m, fn: fn, createEmpty: false, timeSrc: "_start")
        |> map(fn: (r) => ({r with _field: r._field + suffix}))
        |> to(bucket: "processo_1m")

reduced(fn: mean, suffix: "_mean") |> yield(name: "mean")
reduced(fn: min, suffix: "_min") |> yield(name: "min")
reduced(fn: max, suffix: "_max") |> yield(name: "max")
reduced(fn: last, suffix: "_last") |> yield(name: "last")

// Counters: what was added. A step back is a restart from zero (or an INT that overflowed), so the
// new value itself was added.
from(bucket: "processo")
    |> range(start: before, stop: stop)
    |> filter(fn: (r) => contains(value: r._field, set: counters))
    |> difference(nonNegative: true, initialZero: true)
    |> range(start: start, stop: stop)
    |> aggregateWindow(every: 1m, fn: sum, createEmpty: false, timeSrc: "_start")
    |> map(fn: (r) => ({r with _field: r._field + "_inc"}))
    |> to(bucket: "processo_1m")
    |> yield(name: "inc")

// Booleans: the share of the time that they were true. Messages come on change, so a plain mean
// would count changes; a grid of 5 s counts time. Only minutes with a message count: a silent PLC is
// neither on nor off. (No join: it fails where series have different tags.)
from(bucket: "processo")
    |> range(start: before, stop: stop)
    |> filter(fn: (r) => contains(value: r._field, set: booleans))
    // A selector drops empty windows, a mean of one value does not: first the last of each 5 s, then the grid.
    |> aggregateWindow(every: 5s, fn: last, createEmpty: false, timeSrc: "_start")
    |> aggregateWindow(every: 5s, fn: mean, createEmpty: true, timeSrc: "_start")
    |> duplicate(column: "_value", as: "said")
    |> fill(usePrevious: true)
    |> range(start: start, stop: stop)
    |> window(every: 1m)
    |> reduce(
        identity: {on: 0.0, known: 0.0, messages: 0.0},
        fn: (r, accumulator) =>
            ({
                on: accumulator.on + (if exists r._value then r._value else 0.0),
                known: accumulator.known + (if exists r._value then 1.0 else 0.0),
                messages: accumulator.messages + (if exists r.said then 1.0 else 0.0),
            }),
    )
    |> filter(fn: (r) => r.messages > 0.0)
    |> map(
        fn: (r) => ({r with _time: r._start, _value: r.on / r.known, _field: r._field + "_duty"}),
    )
    |> drop(columns: ["on", "known", "messages"])
    |> to(bucket: "processo_1m")
    |> yield(name: "duty")
