// Rendered by `plc-edge infra render`. processo_1m -> processo_1h.
import "date"

// After plc_edge_1m_recalculo has written the minutes again.
option task = {name: "plc_edge_1h_recalculo", cron: "20 3 * * *"}

stop = date.truncate(t: now(), unit: 1d)
start = date.sub(d: 7d, from: stop)

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
