// Reads "topic base64" lines, writes each as a line of JSON, as Eclipse Tahu's JavaScript library
// reads it. Values of DATA messages have no datatype on the wire: it is the birth's, by alias.
const path = require("path");
const root = path.join(process.argv[2], "node_modules", "sparkplug-payload");
const sparkplug = require(root).get("spBv1.0");
const proto = require(path.join(root, "lib", "sparkplugPayloadProto.js"));
const Payload = proto.org.eclipse.tahu.protobuf.Payload;
const types = new Map();

const has = (object, key) => Object.prototype.hasOwnProperty.call(object, key);
const plain = (key, value) => {
  if (value && value.constructor && value.constructor.name === "Long") return value.toString();
  return value;
};

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [topic, data] = line.split(" ");
  const raw = Payload.decode(Buffer.from(data || "", "base64"));
  const wire = raw.metrics.map((m) => ({
    typed: has(m, "datatype"), named: has(m, "name"), aliased: has(m, "alias"),
    valued: m.value !== undefined, timed: has(m, "timestamp"), is_null: m.isNull === true,
  }));
  for (const metric of raw.metrics) {
    if (!has(metric, "alias")) continue;
    if (has(metric, "datatype")) types.set(metric.alias.toString(), metric.datatype);
    else metric.datatype = types.get(metric.alias.toString()) || 0;
  }
  const payload = sparkplug.decodePayload(Payload.encode(raw).finish());
  const metrics = payload.metrics.map((m, i) => ({ ...m, wire: wire[i] }));
  const body = payload.body ? Buffer.from(payload.body).toString() : "";
  const out = { topic, timestamp: payload.timestamp, metrics, body };
  if (has(raw, "seq")) out.seq = Number(raw.seq);
  for (const metric of out.metrics) {
    for (const key of ["value", "alias", "timestamp"]) metric[key] = plain(key, metric[key]);
    if (typeof metric.value === "number" && !Number.isFinite(metric.value)) throw "not finite";
  }
  out.timestamp = plain("", out.timestamp);
  process.stdout.write(JSON.stringify(out) + "\n");
});
