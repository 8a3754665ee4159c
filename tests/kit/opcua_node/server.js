// An OPC UA server that is not ours, for tests: node-opcua (MIT). It is told what to do by JSON
// lines on stdin and answers each with one on stdout; it ends with its stdin.
//   node server.js '{"port": 4840, "pki": "folder", "policies": [...], "users": {"name": "word"}}'
"use strict";
const fs = require("fs");
const path = require("path");
const readline = require("readline");
const opcua = require("node-opcua");
const { EUInformation } = require("node-opcua-types");
const { DataType, VariantArrayType, StatusCodes } = opcua;

const options = JSON.parse(process.argv[2]);
const URI = "urn:plc-edge:test:plant";
const WORDS = {
  Boolean: true, SByte: -128, Byte: 255, Int16: -32768, UInt16: 65535, Int32: -2147483648,
  UInt32: 4294967295, Int64: [0x80000000, 0], UInt64: [0xffffffff, 0xffffffff],
  Float: 0.1, Double: 0.1, String: "água 高炉 €", DateTime: new Date("2026-11-30T12:34:56.789Z"),
  Guid: "72962B91-FA75-4AE6-8D28-B404DC7DAF63", ByteString: Buffer.from("00ff10", "hex"),
};

function reply(line) { process.stdout.write(JSON.stringify(line) + "\n"); }

function variant(v) {
  const out = { dataType: DataType[v.type], value: v.value, arrayType: VariantArrayType.Scalar };
  if (v.type === "DateTime") out.value = new Date(v.value);
  if (v.array) out.arrayType = VariantArrayType.Array;
  if (v.dimensions) { out.arrayType = VariantArrayType.Matrix; out.dimensions = v.dimensions; }
  return out;
}

class TornUnit extends EUInformation {
  encode(stream) { stream.writeUInt8(1); }
}

async function main() {
  const certificates = new opcua.OPCUACertificateManager({
    rootFolder: path.join(options.pki, "pki"),
    automaticallyAcceptUnknownCertificate: options.accept !== false,
  });
  await certificates.initialize();
  const policies = options.policies || ["Basic256Sha256", "Aes256_Sha256_RsaPss"];
  const users = options.users || {};
  const server = new opcua.OPCUAServer({
    port: options.port,
    hostname: "127.0.0.1",
    resourcePath: "",
    serverCertificateManager: certificates,
    userCertificateManager: certificates,
    securityPolicies: policies.map((p) => opcua.SecurityPolicy[p]),
    securityModes: policies[0] === "None" ? [opcua.MessageSecurityMode.None]
      : [opcua.MessageSecurityMode.Sign, opcua.MessageSecurityMode.SignAndEncrypt],
    allowAnonymous: options.anonymous !== false,
    userManager: { isValidUser: (user, word) => user in users && users[user] === word },
    nodeset_filename: [opcua.nodesets.standard, path.join(__dirname, "types.xml")],
    serverCapabilities: {
      operationLimits: options.limits,
      // Every change of a counter is told; else those within 50 ms would be made one.
      minSupportedSampleRate: options.counters ? 0 : undefined,
    },
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  for (let n = 0; n < (options.namespaces || 1); n++) {
    space.registerNamespace(`urn:plc-edge:test:other${n}`);
  }
  const ns = space.registerNamespace(URI);
  const plant = ns.addFolder(space.rootFolder.objects, { browseName: "Plant", nodeId: "s=Plant" });
  const nodes = {};

  function add(name, parent, value, more) {
    nodes[name] = ns.addVariable({
      componentOf: parent, browseName: name, nodeId: `s=${name}`, minimumSamplingInterval: 0,
      dataType: DataType[value.type] === undefined ? value.type : DataType[value.type],
      valueRank: value.dimensions ? value.dimensions.length : value.array ? 1 : -1,
      arrayDimensions: value.dimensions || undefined, ...more,
    });
    nodes[name].setValueFromSource(variant(value), StatusCodes.Good, new Date());
  }

  for (const [type, value] of Object.entries(WORDS)) add(type, plant, { type, value });
  add("counter", plant, { type: "Int32", value: 0 });
  add("ints", plant, { type: "Int16", value: Int16Array.from([1, -2, 3]), array: true });
  add("texts", plant, { type: "String", value: ["a", "ção"], array: true });
  add("matrix", plant,
    { type: "Int32", value: Int32Array.from([1, 2, 3, 4, 5, 6]), array: true, dimensions: [2, 3] });
  add("nan", plant, { type: "Float", value: NaN });
  add("infinite", plant, { type: "Double", value: Infinity });
  add("small", plant, { type: "Int64", value: [0, 42] });
  const types = space.getNamespaceIndex("urn:plc-edge:test:types");
  const dtl = space.findDataType("DTL", types), drive = space.findDataType("Drive", types);
  const clock = { YEAR: 2026, MONTH: 11, DAY: 30, WEEKDAY: 2, HOUR: 12, MINUTE: 34, SECOND: 56,
    NANOSECOND: 789000000 };
  const makeDrive = (speed) => space.constructExtensionObject(drive, {
    speed, running: true, name: "Açúcar", total: [0x7fffffff, 0xffffffff],
    started: space.constructExtensionObject(dtl, clock), trips: [4, 5] });
  const addStruct = (name, type, value) => {
    nodes[name] = ns.addVariable({ componentOf: plant, browseName: name, nodeId: `s=${name}`,
      dataType: type.nodeId, minimumSamplingInterval: 0,
      value: { dataType: DataType.ExtensionObject, value } });
  };
  addStruct("dtl", dtl, space.constructExtensionObject(dtl, clock));
  addStruct("drive", drive, makeDrive(12.5));
  addStruct("unit", space.findDataType("EUInformation", 0), new EUInformation({ unitId: 7 }));
  nodes.level = ns.addAnalogDataItem({ componentOf: plant, browseName: "level", nodeId: "s=level",
    description: "Nível do tanque", definition: "level", valuePrecision: 0.1, dataType: "Double",
    engineeringUnitsRange: { low: 0, high: 100 },
    engineeringUnits: opcua.standardUnits.degree_celsius, minimumSamplingInterval: 0 });
  nodes.level.setValueFromSource(variant({ type: "Double", value: 20.5 }), StatusCodes.Good,
    new Date());
  const many = ns.addFolder(plant, { browseName: "Many", nodeId: "s=Many" });
  for (let n = 0; n < (options.many || 0); n++) {
    add(`n${n}`, many, { type: "Double", value: n });
  }
  // Counters that count up by themselves: {name: {from, period_ms}}. Their numbers lie in the file
  // `keep` before anybody sees them, so after `kill -9` they go on where they were.
  const counters = Object.keys(options.counters || {});
  const numbers = Int32Array.from(counters, (name) => options.counters[name].from);
  const kept = counters.length
    ? fs.openSync(options.keep, fs.constants.O_RDWR | fs.constants.O_CREAT) : null;
  if (counters.length) fs.readSync(kept, numbers, 0, numbers.byteLength, 0);
  const step = (n) => {
    numbers[n] += 1;
    fs.writeSync(kept, numbers, 0, numbers.byteLength, 0);
    nodes[counters[n]].setValueFromSource(variant({ type: "Int32", value: numbers[n] }),
      StatusCodes.Good, new Date());
  };
  counters.forEach((name, n) => add(name, plant, { type: "Int32", value: numbers[n] }));
  if (options.hideLimits) { // it has limits, and says that it has none
    for (const limit of ["maxNodesPerRead", "maxMonitoredItemsPerCall", "maxNodesPerRegisterNodes"]) {
      const node = space.rootFolder.objects.server.serverCapabilities.operationLimits[limit];
      if (node) node.bindVariable({ get: () => new opcua.Variant(variant({ type: "UInt32", value: 0 })) }, true);
    }
  }
  await server.start();
  let cycle = null, counted = 0;
  const cycles = counters.map((name, n) => setInterval(step, options.counters[name].period_ms, n));

  const orders = {
    // Values one after the other, without a pause: [{node, type, value, status?, at_ms?}]
    set({ values }) {
      for (const v of values) {
        const at = v.at_ms === undefined ? new Date() : new Date(v.at_ms);
        const status = v.status ? StatusCodes[v.status] : StatusCodes.Good;
        nodes[v.node].setValueFromSource(variant(v), status, at);
      }
    },
    drive({ speed }) {
      nodes.drive.setValueFromSource(
        { dataType: DataType.ExtensionObject, value: makeDrive(speed) }, StatusCodes.Good, new Date());
    },
    // A structure of the standard's, whole or ending too early.
    unit({ torn }) {
      const Unit = torn ? TornUnit : EUInformation;
      nodes.unit.setValueFromSource(
        { dataType: DataType.ExtensionObject, value: new Unit({ unitId: 7 }) }, StatusCodes.Good, new Date());
    },
    // Counts "counter" up every period_ms, on from where it is, which is returned; `stop` returns
    // the last number.
    count({ period_ms }) {
      const before = counted;
      cycle = setInterval(() => {
        counted += 1;
        nodes.counter.setValueFromSource(variant({ type: "Int32", value: counted }),
          StatusCodes.Good, new Date());
      }, period_ms);
      return before;
    },
    stop() { clearInterval(cycle); return counted; },
    // So many numbers of one of the counters at once.
    burst({ counter, count }) { while (count-- > 0) step(counters.indexOf(counter)); },
    // The counters stop; {name: its last number}.
    halt() {
      cycles.forEach(clearInterval);
      return Object.fromEntries(counters.map((name, n) => [name, numbers[n]]));
    },
    // All of n0, n1, … change every period_ms.
    churn({ period_ms }) {
      let n = 0;
      cycle = setInterval(() => {
        n += 1;
        const now = new Date();
        for (let i = 0; i < options.many; i++) {
          nodes[`n${i}`].setValueFromSource({ dataType: DataType.Double, value: n + i / 1e4 },
            StatusCodes.Good, now);
        }
      }, period_ms);
    },
    // A node that was not there, as after a program was loaded.
    add({ node, type, value }) { add(node, plant, { type, value }); },
    // The server forgets every session, as when its timeout has passed.
    expire() {
      const sessions = Object.values(server.engine._sessions || {});
      for (const s of sessions) server.engine.closeSession(s.authenticationToken, true, "Timeout");
      return sessions.length;
    },
    subscriptions() { return server.engine.currentSubscriptionCount; },
    sessions() { return server.engine.currentSessionCount; },
    state({ state }) { server.engine.setServerState(opcua.ServerState[state]); },
  };
  reply({ ready: true, uri: URI });
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const order = JSON.parse(line);
    try {
      const result = orders[order.op](order);
      reply({ ok: result === undefined ? true : result });
    } catch (e) {
      reply({ error: String(e.stack) });
    }
  }).on("close", () => server.shutdown(0).then(() => process.exit(0)));
}

main().catch((e) => { reply({ error: String(e.stack) }); process.exit(1); });
