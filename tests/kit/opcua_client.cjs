// A client that is not ours: node-opcua (MIT, npm). Prints one JSON line for each thing that happens.
//   node opcua_client.cjs '{"url", "pki", "cert", "key", "uri", "policy", "mode", "user"?, "password"?,
//                           "userCert"?, "userKey"?, "namespace", "node"?, "watch": [paths], "past"?: [from, to]}'
// It browses all that it may see, reads `watch`, asks for history, then watches until its input ends.
"use strict";
const fs = require("fs");
const readline = require("readline");
const opcua = require(require.resolve("node-opcua-client", { paths: [process.env.NODE_FOLDER] }));
const { OPCUACertificateManager } = require(
  require.resolve("node-opcua-certificate-manager", { paths: [process.env.NODE_FOLDER] }));
const told = JSON.parse(process.argv[2]);
const say = (what, more) => process.stdout.write(JSON.stringify({ what, ...more }) + "\n");

function identity() {
  if (told.userCert) {
    return {
      type: opcua.UserTokenType.Certificate,
      certificateData: fs.readFileSync(told.userCert),
      privateKey: fs.readFileSync(told.userKey, "utf-8"),
    };
  }
  if (!told.user) return { type: opcua.UserTokenType.Anonymous };
  return { type: opcua.UserTokenType.UserName, userName: told.user, password: told.password };
}

async function tree(session, node, path, found) {
  const result = await session.browse({
    nodeId: node, includeSubtypes: true, nodeClassMask: 0, resultMask: 63,
    referenceTypeId: opcua.resolveNodeId("HierarchicalReferences"),
    browseDirection: opcua.BrowseDirection.Forward,
  });
  for (const ref of result.references || []) {
    if (path.length === 0 && ref.nodeId.namespace === 0) continue; // Server, Types …
    const here = [...path, ref.browseName.name];
    found.push(here.join("/"));
    await tree(session, ref.nodeId, here, found);
  }
}

const plain = (v) => ({
  value: v.value && v.value.value, type: v.value && opcua.DataType[v.value.dataType],
  status: v.statusCode.name, source: v.sourceTimestamp && v.sourceTimestamp.toISOString(),
});

async function main() {
  const client = opcua.OPCUAClient.create({
    applicationName: "scada", applicationUri: told.uri,
    certificateFile: told.cert, privateKeyFile: told.key,
    securityMode: opcua.MessageSecurityMode[told.mode], securityPolicy: opcua.SecurityPolicy[told.policy],
    endpointMustExist: false, requestedSessionTimeout: 20000,
    connectionStrategy: { initialDelay: 100, maxDelay: 500, maxRetry: told.once ? 0 : 1000 },
    clientCertificateManager: new OPCUACertificateManager({
      rootFolder: told.pki, automaticallyAcceptUnknownCertificate: true,
    }),
  });
  client.on("connection_lost", () => say("lost"));
  client.on("connection_reestablished", () => say("back"));
  await client.connect(told.url);
  const session = await client.createSession(identity());
  session.on("session_restored", () => say("restored"));
  const namespaces = await session.readNamespaceArray();
  const index = namespaces.indexOf(told.namespace);
  const id = (path) => `ns=${index};s=${path}`;
  const found = [];
  await tree(session, "ObjectsFolder", [], found);
  say("tree", { paths: found, namespaces });
  const nodes = told.watch.map((path) => ({ nodeId: id(path), attributeId: opcua.AttributeIds.Value }));
  const read = await session.read(nodes);
  say("read", { values: Object.fromEntries(told.watch.map((p, i) => [p, plain(read[i])])) });
  for (const node of nodes.slice(0, 1)) {
    const past = await session.readHistoryValue(node, new Date(Date.now() - 60000), new Date());
    say("history", { status: past.statusCode.name });
    if (told.past) {
      const [from, to] = told.past.map((t) => new Date(t));
      const read = await session.readHistoryValue(node, from, to);
      say("past", { values: read.historyData.dataValues.map(plain) });
    }
    const code = await session.write({ ...node, value: { value: { dataType: "Float", value: 1 } } });
    say("write", { status: code.name });
  }
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 50, requestedLifetimeCount: 200, requestedMaxKeepAliveCount: 20,
    maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 1,
  });
  const group = await subscription.monitorItems(
    nodes, { samplingInterval: 0, queueSize: 10, discardOldest: true }, opcua.TimestampsToReturn.Both);
  group.on("changed", (item, value, i) => say("changed", { path: told.watch[i], ...plain(value) }));
  say("watching");
  await new Promise((done) => readline.createInterface({ input: process.stdin }).on("close", done));
  await session.close();
  await client.disconnect();
}

main().then(() => process.exit(0), (e) => { say("error", { text: String(e.message || e) }); process.exit(1); });
