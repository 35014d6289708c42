// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.read.ListAppender;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.slf4j.LoggerFactory;

class LoggerFinderTest {
  private final String name = "io.tidemark.cli.test";
  private final System.Logger logger = LoggerFinder.logger(name, "WARN");
  private final Logger target = (Logger) LoggerFactory.getLogger(name);

  @BeforeEach
  void logbackAgrees() {
    target.setLevel(Level.WARN);
  }

  @Test
  void isWhatTheJdkFinds() {
    assertThat(System.LoggerFinder.getLoggerFinder()).isInstanceOf(LoggerFinder.class);
  }

  @Test
  void wantsWarningsAndNoMoreUnlessAskedTo() {
    assertThat(logger.isLoggable(System.Logger.Level.ERROR)).isTrue();
    assertThat(logger.isLoggable(System.Logger.Level.WARNING)).isTrue();
    assertThat(logger.isLoggable(System.Logger.Level.INFO)).isFalse();
    assertThat(logger.isLoggable(System.Logger.Level.OFF)).isFalse();
  }

  @Test
  void readsLevelsAsLogbackDoes() {
    assertThat(LoggerFinder.logger(name, "off").isLoggable(System.Logger.Level.ERROR)).isFalse();
    assertThat(LoggerFinder.logger(name, "error").isLoggable(System.Logger.Level.WARNING))
        .isFalse();
    target.setLevel(Level.TRACE);
    assertThat(LoggerFinder.logger(name, "all").isLoggable(System.Logger.Level.TRACE)).isTrue();
    assertThat(LoggerFinder.logger(name, "what").isLoggable(System.Logger.Level.DEBUG)).isTrue();
    assertThat(LoggerFinder.logger(name, "what").isLoggable(System.Logger.Level.TRACE)).isFalse();
  }

  @Test
  void handsLinesOnAsTheyWereGiven() {
    var lines = new ListAppender<ILoggingEvent>();
    lines.start();
    target.addAppender(lines);
    target.setAdditive(false);
    try {
      logger.log(System.Logger.Level.WARNING, "client's {} stays");
      logger.log(System.Logger.Level.ERROR, "{0} of {1}", 1, "two");
      logger.log(System.Logger.Level.ERROR, "with cause", new IllegalStateException("cause"));
    } finally {
      target.detachAppender(lines);
    }
    assertThat(lines.list)
        .extracting(ILoggingEvent::getFormattedMessage)
        .containsExactly("client's {} stays", "1 of two", "with cause");
    assertThat(lines.list.getLast().getThrowableProxy().getMessage()).isEqualTo("cause");
  }
}
