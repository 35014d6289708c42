// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import java.lang.annotation.Documented;
import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;
import java.lang.reflect.Method;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.InvocationInterceptor;
import org.junit.jupiter.api.extension.ReflectiveInvocationContext;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.ArgumentsProvider;
import org.junit.jupiter.params.provider.ArgumentsSource;
import org.junit.jupiter.params.support.AnnotationConsumer;
import org.junit.jupiter.params.support.ParameterDeclarations;
import org.opentest4j.TestAbortedException;

/// Runs a `@ParameterizedTest` with a `long` parameter for the seeds 1 to `value`.
///
/// A failing seed is printed; `-Dseed=N` repeats it alone; `-Dseeds=N` sets the count of every such
/// test, `-Dseeds.factor=N` multiplies it.
@Documented
@Retention(RetentionPolicy.RUNTIME)
@Target(ElementType.METHOD)
@ArgumentsSource(Seeds.Source.class)
@ExtendWith(Seeds.Printer.class)
public @interface Seeds {
  int value();

  /// The seeds as arguments.
  final class Source implements ArgumentsProvider, AnnotationConsumer<Seeds> {
    private long count;

    @Override
    public void accept(Seeds seeds) {
      count = Long.getLong("seeds", seeds.value() * Long.getLong("seeds.factor", 1L));
    }

    @Override
    public Stream<? extends Arguments> provideArguments(
        ParameterDeclarations parameters, ExtensionContext context) {
      Long only = Long.getLong("seed");
      LongStream seeds = only != null ? LongStream.of(only) : LongStream.rangeClosed(1, count);
      return seeds.mapToObj(Arguments::of);
    }
  }

  /// Says which seed failed.
  final class Printer implements InvocationInterceptor {
    @Override
    public void interceptTestTemplateMethod(
        Invocation<@Nullable Void> invocation,
        ReflectiveInvocationContext<Method> call,
        ExtensionContext context)
        throws Throwable {
      try {
        invocation.proceed();
      } catch (TestAbortedException e) {
        throw e;
      } catch (Throwable e) {
        System.err.println(
            call.getExecutable().getName()
                + " failed with seed "
                + call.getArguments().getFirst()
                + "; repeat it with -Dseed="
                + call.getArguments().getFirst());
        throw e;
      }
    }
  }
}
