// SPDX-License-Identifier: Apache-2.0

import java.io.IOException;
import java.lang.classfile.ClassFile;
import java.lang.classfile.ClassFileVersion;
import java.lang.classfile.ClassHierarchyResolver;
import java.lang.classfile.ClassModel;
import java.lang.classfile.ClassTransform;
import java.lang.classfile.MethodTransform;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Collections;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;

/// Raises the classes of a jar to version 52 (Java 8), with the stack maps that it asks for. What
/// they do stays. `java scripts/RewriteClasses.java FILE.jar`
///
/// The JVM verifies classes of such versions faster and takes them into its AOT cache.
final class RewriteClasses {
  private static final int WANTED = ClassFile.JAVA_8_VERSION;

  public static void main(String[] args) throws IOException {
    Path jar = Path.of(args[0]);
    Path written = jar.resolveSibling(jar.getFileName() + ".new");
    try (var loader = new URLClassLoader(new URL[] {jar.toUri().toURL()});
        var in = new ZipFile(jar.toFile());
        var out = new ZipOutputStream(Files.newOutputStream(written))) {
      var classFile =
          ClassFile.of(
              ClassFile.StackMapsOption.GENERATE_STACK_MAPS,
              ClassFile.ClassHierarchyResolverOption.of(
                  ClassHierarchyResolver.ofClassLoading(loader)));
      for (ZipEntry entry : Collections.list(in.entries())) {
        byte[] bytes = in.getInputStream(entry).readAllBytes();
        boolean wanted = entry.getName().endsWith(".class") && !entry.getName().startsWith("META-INF");
        var copy = new ZipEntry(entry.getName());
        copy.setTime(entry.getTime());
        out.putNextEntry(copy);
        out.write(wanted ? raised(classFile, bytes) : bytes);
      }
    }
    Files.move(written, jar, StandardCopyOption.REPLACE_EXISTING);
  }

  private static byte[] raised(ClassFile classFile, byte[] bytes) {
    ClassModel model = classFile.parse(bytes);
    if (model.majorVersion() >= WANTED) {
      return bytes;
    }
    // Code that passes through a transform is written anew, with stack maps.
    ClassTransform code =
        ClassTransform.transformingMethods(
            MethodTransform.transformingCode((builder, element) -> builder.with(element)));
    ClassTransform version =
        (builder, element) -> {
          if (element instanceof ClassFileVersion) {
            builder.withVersion(WANTED, 0);
          } else {
            builder.with(element);
          }
        };
    return classFile.transformClass(model, version.andThen(code));
  }
}
