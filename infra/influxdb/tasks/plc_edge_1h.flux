// Rendered by `plc-edge infra render`. processo_1m -> processo_1h.
import "date"

option task = {name: "plc_edge_1h", every: 1h, offset: 2m}

// Two whole hours: points that came up to an hour late are counted.
stop = date.truncate(t: now(), unit: 1h)
start = date.sub(d: 2h, from: stop)

// The kind of a value is the end of its name; means of minutes weigh the same.
hourly = (suffix, fn) =>
    from(bucket: "processo_1m")
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._field =~ suffix)
        |> aggregateWindow(every: 1h, fn: fn, createEmpty: false, timeSrc: "_start")
        |> to(bucket: "processo_1h")

hourly(suffix: /_mean$|_duty$/, fn: mean) |> yield(name: "mean")
hourly(suffix: /_min$/, fn: min) |> yield(name: "min")
hourly(suffix: /_max$/, fn: max) |> yield(name: "max")
hourly(suffix: /_last$/, fn: last) |> yield(name: "last")
hourly(suffix: /_inc$/, fn: sum) |> yield(name: "inc")
