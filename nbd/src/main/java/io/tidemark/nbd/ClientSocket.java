// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.TransportException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/// Connects to a server, and bounds the time of what comes before transmission.
final class ClientSocket {
  private ClientSocket() {}

  /// What is done with a connected socket.
  interface Talk<T> {
    T with(SocketChannel channel) throws IOException;
  }

  /// Connects and talks, in `time` altogether. The socket stays open when it went well; past the
  /// time it is closed under the talk.
  static <T> T open(NbdUri uri, Duration time, Talk<T> talk) throws BlockException {
    var over = new CountDownLatch(1);
    try {
      SocketChannel channel =
          uri.socket().isPresent()
              ? SocketChannel.open(StandardProtocolFamily.UNIX)
              : SocketChannel.open();
      Thread.ofVirtual().name("nbd-connect-timer").start(() -> closeUnless(over, time, channel));
      try {
        connect(channel, uri);
        return talk.with(channel);
      } catch (IOException | RuntimeException | Error e) {
        channel.close();
        throw e;
      }
    } catch (BlockException e) {
      throw e;
    } catch (NbdProtocolException e) {
      throw new TransportException(String.valueOf(e.getMessage()), e);
    } catch (ClosedChannelException e) {
      throw new TransportException(uri + ": no connection within " + time, e);
    } catch (IOException e) {
      throw new TransportException(uri + ": " + e.getMessage(), e);
    } finally {
      over.countDown();
    }
  }

  private static void connect(SocketChannel channel, NbdUri uri) throws IOException {
    if (uri.socket().isPresent()) {
      channel.connect(UnixDomainSocketAddress.of(uri.socket().get()));
      return;
    }
    var address = new InetSocketAddress(uri.host(), uri.port());
    if (address.isUnresolved()) {
      throw new IOException("unknown host " + uri.host());
    }
    channel.connect(address);
    channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
    channel.setOption(StandardSocketOptions.SO_KEEPALIVE, true);
  }

  private static void closeUnless(CountDownLatch over, Duration time, SocketChannel channel) {
    try {
      if (!over.await(time.toNanos(), TimeUnit.NANOSECONDS)) {
        channel.close();
      }
    } catch (InterruptedException e) {
      throw new IllegalStateException("the timer was interrupted", e);
    } catch (IOException _) {
      // Closed it is; nothing was sent that matters.
    }
  }
}
