import static org.eclipse.milo.opcua.stack.core.types.builtin.unsigned.Unsigned.ubyte;
import static org.eclipse.milo.opcua.stack.core.types.builtin.unsigned.Unsigned.uint;
import static org.eclipse.milo.opcua.stack.core.types.builtin.unsigned.Unsigned.ulong;
import static org.eclipse.milo.opcua.stack.core.types.builtin.unsigned.Unsigned.ushort;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.KeyPair;
import java.security.Security;
import java.security.cert.X509Certificate;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.eclipse.milo.opcua.sdk.core.AccessLevel;
import org.eclipse.milo.opcua.sdk.core.Reference;
import org.eclipse.milo.opcua.sdk.server.EndpointConfig;
import org.eclipse.milo.opcua.sdk.server.ManagedNamespaceWithLifecycle;
import org.eclipse.milo.opcua.sdk.server.OpcUaServer;
import org.eclipse.milo.opcua.sdk.server.OpcUaServerConfig;
import org.eclipse.milo.opcua.sdk.server.identity.AnonymousIdentityValidator;
import org.eclipse.milo.opcua.sdk.server.identity.CompositeValidator;
import org.eclipse.milo.opcua.sdk.server.identity.UsernameIdentityValidator;
import org.eclipse.milo.opcua.sdk.server.items.DataItem;
import org.eclipse.milo.opcua.sdk.server.items.MonitoredItem;
import org.eclipse.milo.opcua.sdk.server.nodes.UaDataTypeNode;
import org.eclipse.milo.opcua.sdk.server.nodes.UaFolderNode;
import org.eclipse.milo.opcua.sdk.server.nodes.UaVariableNode;
import org.eclipse.milo.opcua.sdk.server.util.SubscriptionModel;
import org.eclipse.milo.opcua.stack.core.NodeIds;
import org.eclipse.milo.opcua.stack.core.security.CertificateValidator;
import org.eclipse.milo.opcua.stack.core.security.DefaultApplicationGroup;
import org.eclipse.milo.opcua.stack.core.security.DefaultCertificateManager;
import org.eclipse.milo.opcua.stack.core.security.MemoryCertificateQuarantine;
import org.eclipse.milo.opcua.stack.core.security.MemoryCertificateStore;
import org.eclipse.milo.opcua.stack.core.security.MemoryTrustListManager;
import org.eclipse.milo.opcua.stack.core.security.RsaSha256CertificateFactory;
import org.eclipse.milo.opcua.stack.core.security.SecurityPolicy;
import org.eclipse.milo.opcua.stack.core.transport.TransportProfile;
import org.eclipse.milo.opcua.stack.core.types.builtin.ByteString;
import org.eclipse.milo.opcua.stack.core.types.builtin.DataValue;
import org.eclipse.milo.opcua.stack.core.types.builtin.DateTime;
import org.eclipse.milo.opcua.stack.core.types.builtin.ExtensionObject;
import org.eclipse.milo.opcua.stack.core.types.builtin.LocalizedText;
import org.eclipse.milo.opcua.stack.core.types.builtin.NodeId;
import org.eclipse.milo.opcua.stack.core.types.builtin.StatusCode;
import org.eclipse.milo.opcua.stack.core.types.builtin.Variant;
import org.eclipse.milo.opcua.stack.core.types.enumerated.MessageSecurityMode;
import org.eclipse.milo.opcua.stack.core.types.enumerated.StructureType;
import org.eclipse.milo.opcua.stack.core.types.structured.StructureDefinition;
import org.eclipse.milo.opcua.stack.core.types.structured.StructureField;
import org.eclipse.milo.opcua.stack.core.util.SelfSignedCertificateBuilder;
import org.eclipse.milo.opcua.stack.core.util.SelfSignedCertificateGenerator;
import org.eclipse.milo.opcua.stack.transport.server.tcp.OpcTcpServerTransport;
import org.eclipse.milo.opcua.stack.transport.server.tcp.OpcTcpServerTransportConfig;

/**
 * A second OPC UA server that is not ours, for tests: Eclipse Milo (EPL-2.0). Run as
 * {@code java -cp 'jars/*' Server.java PORT}. Every line on stdin sets "counter" to that number, one
 * after the other; it says "ready" when it takes connections, and ends with its stdin. Each start
 * makes a new certificate.
 */
public class Server {
  static final String URI = "urn:plc-edge:test:plant";

  public static void main(String[] args) throws Exception {
    Security.addProvider(new BouncyCastleProvider());
    int port = Integer.parseInt(args[0]);
    KeyPair keys = SelfSignedCertificateGenerator.generateRsaKeyPair(2048);
    X509Certificate certificate =
        new SelfSignedCertificateBuilder(keys)
            .setCommonName("plc-edge test peer")
            .setApplicationUri("urn:plc-edge:test:milo")
            .addDnsName("localhost")
            .addIpAddress("127.0.0.1")
            .build();
    var factory =
        new RsaSha256CertificateFactory() {
          @Override
          protected KeyPair createRsaSha256KeyPair() {
            return keys;
          }

          @Override
          protected X509Certificate[] createRsaSha256CertificateChain(KeyPair pair) {
            return new X509Certificate[] {certificate};
          }
        };
    CertificateValidator anyClient = (chain, uri, hostnames) -> {};
    var group =
        DefaultApplicationGroup.createAndInitialize(
            new MemoryTrustListManager(), new MemoryCertificateStore(), factory, anyClient);
    var manager = new DefaultCertificateManager(new MemoryCertificateQuarantine(), group);
    var users =
        new UsernameIdentityValidator(
            c -> "edge".equals(c.getUsername()) && "segredo".equals(c.getPassword()));
    OpcUaServerConfig config =
        OpcUaServerConfig.builder()
            .setApplicationUri("urn:plc-edge:test:milo")
            .setApplicationName(LocalizedText.english("plc-edge test peer"))
            .setProductUri("urn:plc-edge:test:milo")
            .setEndpoints(endpoints(port, certificate))
            .setCertificateManager(manager)
            .setIdentityValidator(
                new CompositeValidator(AnonymousIdentityValidator.INSTANCE, users))
            .build();
    OpcUaServer server =
        new OpcUaServer(
            config,
            profile ->
                new OpcTcpServerTransport(OpcTcpServerTransportConfig.newBuilder().build()));
    Plant plant = new Plant(server);
    plant.startup();
    server.startup().get();
    System.out.println("ready");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      plant.counter.setValue(new DataValue(new Variant(Integer.parseInt(line.trim()))));
    }
    System.exit(0);
  }

  static Set<EndpointConfig> endpoints(int port, X509Certificate certificate) {
    Set<EndpointConfig> all = new LinkedHashSet<>();
    var base =
        EndpointConfig.newBuilder()
            .setTransportProfile(TransportProfile.TCP_UASC_UABINARY)
            .setBindAddress("127.0.0.1")
            .setBindPort(port)
            .setHostname("127.0.0.1")
            .setCertificate(certificate)
            .addTokenPolicies(
                OpcUaServerConfig.USER_TOKEN_POLICY_ANONYMOUS,
                OpcUaServerConfig.USER_TOKEN_POLICY_USERNAME);
    for (SecurityPolicy policy :
        List.of(SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes256_Sha256_RsaPss)) {
      for (MessageSecurityMode mode :
          List.of(MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt)) {
        all.add(base.copy().setSecurityPolicy(policy).setSecurityMode(mode).build());
      }
    }
    all.add(
        base.copy()
            .setPath("/discovery")
            .setSecurityPolicy(SecurityPolicy.None)
            .setSecurityMode(MessageSecurityMode.None)
            .build());
    return all;
  }

  static class Plant extends ManagedNamespaceWithLifecycle {
    final SubscriptionModel subscriptions;
    UaVariableNode counter;

    Plant(OpcUaServer server) {
      super(server, URI);
      subscriptions = new SubscriptionModel(server, this);
      getLifecycleManager().addLifecycle(subscriptions);
      getLifecycleManager().addStartupTask(this::build);
    }

    void build() {
      UaFolderNode folder =
          new UaFolderNode(
              getNodeContext(),
              newNodeId("Plant"),
              newQualifiedName("Plant"),
              LocalizedText.english("Plant"));
      getNodeManager().addNode(folder);
      folder.addReference(
          new Reference(
              folder.getNodeId(), NodeIds.Organizes, NodeIds.ObjectsFolder.expanded(), false));
      add(folder, "Boolean", NodeIds.Boolean, true);
      add(folder, "SByte", NodeIds.SByte, (byte) -128);
      add(folder, "Byte", NodeIds.Byte, ubyte(255));
      add(folder, "Int16", NodeIds.Int16, (short) -32768);
      add(folder, "UInt16", NodeIds.UInt16, ushort(65535));
      add(folder, "Int32", NodeIds.Int32, -2147483648);
      add(folder, "UInt32", NodeIds.UInt32, uint(4294967295L));
      add(folder, "Int64", NodeIds.Int64, Long.MIN_VALUE);
      add(folder, "UInt64", NodeIds.UInt64, ulong("18446744073709551615"));
      add(folder, "Float", NodeIds.Float, 0.1f);
      add(folder, "Double", NodeIds.Double, 0.1d);
      add(folder, "String", NodeIds.String, "água 高炉 €");
      add(folder, "DateTime", NodeIds.DateTime,
          new DateTime(java.time.Instant.parse("2026-11-30T12:34:56.789Z")));
      add(folder, "Guid", NodeIds.Guid, UUID.fromString("72962b91-fa75-4ae6-8d28-b404dc7daf63"));
      add(folder, "ByteString", NodeIds.ByteString,
          ByteString.of(new byte[] {0, (byte) 0xff, 0x10}));
      add(folder, "ints", NodeIds.Int16, new Short[] {1, -2, 3});
      add(folder, "nan", NodeIds.Float, Float.NaN);
      add(folder, "infinite", NodeIds.Double, Double.POSITIVE_INFINITY);
      add(folder, "small", NodeIds.Int64, 42L);
      counter = add(folder, "counter", NodeIds.Int32, 0);
      dtl(folder);
    }

    UaVariableNode add(UaFolderNode folder, String name, NodeId type, Object value) {
      UaVariableNode node =
          new UaVariableNode.UaVariableNodeBuilder(getNodeContext())
              .setNodeId(newNodeId(name))
              .setAccessLevel(AccessLevel.READ_ONLY)
              .setUserAccessLevel(AccessLevel.READ_ONLY)
              .setBrowseName(newQualifiedName(name))
              .setDisplayName(LocalizedText.english(name))
              .setDataType(type)
              .setTypeDefinition(NodeIds.BaseDataVariableType)
              .setValueRank(value instanceof Object[] ? 1 : -1)
              .build();
      node.setValue(new DataValue(new Variant(value), StatusCode.GOOD, DateTime.now()));
      getNodeManager().addNode(node);
      folder.addOrganizes(node);
      return node;
    }

    void dtl(UaFolderNode folder) {
      NodeId type = newNodeId("DTL-type");
      NodeId encoding = newNodeId("DTL-binary");
      UaDataTypeNode node =
          new UaDataTypeNode(
              getNodeContext(), type, newQualifiedName("DTL"), LocalizedText.english("DTL"),
              LocalizedText.NULL_VALUE, uint(0), uint(0), false);
      node.addReference(
          new Reference(
              type, NodeIds.HasSubtype, NodeIds.Structure.expanded(), Reference.Direction.INVERSE));
      StructureField[] fields = {
        field("YEAR", NodeIds.UInt16), field("MONTH", NodeIds.Byte), field("DAY", NodeIds.Byte),
        field("WEEKDAY", NodeIds.Byte), field("HOUR", NodeIds.Byte), field("MINUTE", NodeIds.Byte),
        field("SECOND", NodeIds.Byte), field("NANOSECOND", NodeIds.UInt32)
      };
      node.setDataTypeDefinition(
          new StructureDefinition(encoding, NodeIds.Structure, StructureType.Structure, fields));
      getNodeManager().addNode(node);
      ByteBuffer body = ByteBuffer.allocate(12).order(ByteOrder.LITTLE_ENDIAN);
      body.putShort((short) 2026).put((byte) 11).put((byte) 30).put((byte) 2).put((byte) 12);
      body.put((byte) 34).put((byte) 56).putInt(789_000_000);
      add(folder, "dtl", type, ExtensionObject.of(ByteString.of(body.array()), encoding));
    }

    static StructureField field(String name, NodeId type) {
      return new StructureField(name, LocalizedText.NULL_VALUE, type, -1, null, uint(0), false);
    }

    @Override
    public void onDataItemsCreated(List<DataItem> items) {
      subscriptions.onDataItemsCreated(items);
    }

    @Override
    public void onDataItemsModified(List<DataItem> items) {
      subscriptions.onDataItemsModified(items);
    }

    @Override
    public void onDataItemsDeleted(List<DataItem> items) {
      subscriptions.onDataItemsDeleted(items);
    }

    @Override
    public void onMonitoringModeChanged(List<MonitoredItem> items) {
      subscriptions.onMonitoringModeChanged(items);
    }
  }
}
