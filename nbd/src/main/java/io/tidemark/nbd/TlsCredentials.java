// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.US_ASCII;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedTrustManager;
import org.jspecify.annotations.Nullable;

/// Keys and certificates of one side of TLS, read from a folder of PEM files with the names that
/// QEMU, nbdkit and libnbd give them: `ca-cert.pem`, and `server-cert.pem` with `server-key.pem` or
/// `client-cert.pem` with `client-key.pem`.
///
/// TLS 1.2 and 1.3; a server whose clients' certificates an RSA authority signs: 1.2. Keys are PKCS
/// #8 without a password (`BEGIN PRIVATE KEY`): RSA, EC or EdDSA. There are no pre-shared keys: the
/// JDK has none from outside.
public final class TlsCredentials {
  /// Bytes of one PEM file.
  static final int MAX_FILE_BYTES = 1 << 20;

  private static final Pattern PEM_BLOCK =
      Pattern.compile("-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\\s]+)-----END \\1-----");
  private static final List<String> KEY_ALGORITHMS = List.of("RSA", "EC", "EdDSA");
  private static final String[] PROTOCOLS = {"TLSv1.3", "TLSv1.2"};

  // gnutls: 3.7 shows a certificate only when the algorithm that signed it is one that the server
  // takes for handshakes; in TLS 1.3 the JDK names none that an RSA authority signs with.
  private static final String[] FOR_RSA_CLIENTS = {"TLSv1.2"};

  private final SSLContext context;
  private final boolean client;
  private final boolean verifyPeer;
  private final String[] protocols;

  private TlsCredentials(
      SSLContext context, boolean client, boolean verifyPeer, String[] protocols) {
    this.context = context;
    this.client = client;
    this.verifyPeer = verifyPeer;
    this.protocols = protocols;
  }

  /// A server's: certificate and key, and the authority that signs its clients' certificates.
  ///
  /// @param verifyPeer refuse clients without a certificate of that authority; without it
  ///   `ca-cert.pem` need not be there
  /// @throws IOException naming the file, when one is missing or not what it should be
  public static TlsCredentials server(Path folder, boolean verifyPeer) throws IOException {
    SSLContext context = context(Optional.of(folder), "server", verifyPeer);
    boolean rsaClients =
        verifyPeer
            && certificates(folder.resolve("ca-cert.pem")).stream()
                .anyMatch(authority -> authority.getPublicKey().getAlgorithm().equals("RSA"));
    return new TlsCredentials(context, false, verifyPeer, rsaClients ? FOR_RSA_CLIENTS : PROTOCOLS);
  }

  /// A client's: the authority that signed the server's certificate, and its own certificate where
  /// the folder has one. Without a folder the server is held against the authorities that the
  /// system trusts.
  ///
  /// @param verifyPeer refuse servers whose certificate is not of that authority, or is not for the
  ///   host that was connected to
  public static TlsCredentials client(Optional<Path> folder, boolean verifyPeer)
      throws IOException {
    return new TlsCredentials(context(folder, "client", verifyPeer), true, verifyPeer, PROTOCOLS);
  }

  /// An engine for one connection.
  ///
  /// @param host whose certificate a client wants to see; absent: any that its authority signed, as
  ///   on a unix socket. A server says nothing
  SSLEngine engine(Optional<String> host) {
    SSLEngine engine =
        host.isPresent() ? context.createSSLEngine(host.get(), -1) : context.createSSLEngine();
    engine.setUseClientMode(client);
    SSLParameters parameters = engine.getSSLParameters();
    parameters.setProtocols(protocols);
    if (!client) {
      parameters.setNeedClientAuth(verifyPeer);
    } else if (verifyPeer && host.isPresent()) {
      parameters.setEndpointIdentificationAlgorithm("HTTPS"); // RFC 2818: names of certificates
    }
    engine.setSSLParameters(parameters);
    return engine;
  }

  private static SSLContext context(Optional<Path> folder, String side, boolean verifyPeer)
      throws IOException {
    try {
      SSLContext context = SSLContext.getInstance("TLS");
      KeyManagerFactory keys = null;
      TrustManagerFactory trust =
          TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
      KeyStore authorities = null; // null: the system's
      if (folder.isPresent()) {
        keys = keys(folder.get(), side);
        authorities = authorities(folder.get().resolve("ca-cert.pem"), verifyPeer);
      }
      trust.init(authorities);
      context.init(
          keys == null ? null : keys.getKeyManagers(),
          side.equals("client") && !verifyPeer
              ? new TrustManager[] {new AnyPeer()}
              : trust.getTrustManagers(),
          null);
      return context;
    } catch (GeneralSecurityException e) {
      throw new IOException(
          folder.map(Path::toString).orElse("system") + ": TLS credentials: " + e.getMessage(), e);
    }
  }

  /// Takes whoever is there, for `tls-verify-peer=false`: the bytes are sealed, the peer unknown.
  private static final class AnyPeer extends X509ExtendedTrustManager {
    @Override
    public void checkClientTrusted(X509Certificate[] chain, String type) {}

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String type) {}

    @Override
    public void checkClientTrusted(X509Certificate[] chain, String type, Socket socket) {}

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String type, Socket socket) {}

    @Override
    public void checkClientTrusted(X509Certificate[] chain, String type, SSLEngine engine) {}

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String type, SSLEngine engine) {}

    @Override
    public X509Certificate[] getAcceptedIssuers() {
      return new X509Certificate[0];
    }
  }

  /// Null where a client has none.
  private static @Nullable KeyManagerFactory keys(Path folder, String side)
      throws IOException, GeneralSecurityException {
    Path certificate = folder.resolve(side + "-cert.pem");
    Path key = folder.resolve(side + "-key.pem");
    if (side.equals("client") && !Files.exists(certificate) && !Files.exists(key)) {
      return null;
    }
    KeyStore store = emptyStore();
    Certificate[] chain = certificates(certificate).toArray(new Certificate[0]);
    char[] none = new char[0];
    store.setKeyEntry(side, privateKey(key), none, chain);
    KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    keys.init(store, none);
    return keys;
  }

  private static KeyStore authorities(Path file, boolean needed)
      throws IOException, GeneralSecurityException {
    KeyStore store = emptyStore();
    if (needed || Files.exists(file)) {
      int n = 0;
      for (Certificate certificate : certificates(file)) {
        store.setCertificateEntry("ca" + n++, certificate);
      }
    }
    return store;
  }

  private static KeyStore emptyStore() throws IOException, GeneralSecurityException {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    return store;
  }

  private static Collection<? extends Certificate> certificates(Path file) throws IOException {
    try (InputStream in = new ByteArrayInputStream(bytes(file))) {
      Collection<? extends Certificate> found =
          CertificateFactory.getInstance("X.509").generateCertificates(in);
      if (found.isEmpty()) {
        throw new IOException(file + ": no certificate in it, wanted PEM");
      }
      return found;
    } catch (GeneralSecurityException e) {
      throw new IOException(file + ": not a certificate in PEM: " + e.getMessage(), e);
    }
  }

  private static PrivateKey privateKey(Path file) throws IOException {
    String text = new String(bytes(file), US_ASCII);
    Matcher block = PEM_BLOCK.matcher(text);
    String found = "none";
    while (block.find()) {
      found = block.group(1);
      if (found.equals("PRIVATE KEY")) {
        return decode(file, Base64.getMimeDecoder().decode(block.group(2)));
      }
    }
    throw new IOException(
        file + ": found PEM block " + found + ", wanted PRIVATE KEY (PKCS #8, without a password)");
  }

  private static PrivateKey decode(Path file, byte[] pkcs8) throws IOException {
    try {
      for (String algorithm : KEY_ALGORITHMS) {
        try {
          return KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(pkcs8));
        } catch (InvalidKeySpecException _) {
          // Of another kind, then.
        }
      }
    } catch (GeneralSecurityException e) {
      throw new IOException(file + ": private key: " + e.getMessage(), e);
    }
    throw new IOException(file + ": private key is none of " + KEY_ALGORITHMS);
  }

  private static byte[] bytes(Path file) throws IOException {
    try (InputStream in = Files.newInputStream(file)) {
      byte[] bytes = in.readNBytes(MAX_FILE_BYTES + 1);
      if (bytes.length > MAX_FILE_BYTES) {
        throw new IOException(file + ": larger than " + MAX_FILE_BYTES + " bytes");
      }
      return bytes;
    } catch (NoSuchFileException e) {
      throw new IOException(file + ": missing, wanted a PEM file", e);
    }
  }
}
