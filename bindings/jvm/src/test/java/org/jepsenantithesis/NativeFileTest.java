package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Which of the jar's libraries is taken, on systems that are laid out in a directory. */
class NativeFileTest {
  @TempDir Path root;

  private void maps(String... files) throws IOException {
    StringBuilder maps = new StringBuilder("00400000-00401000 r-xp 00000000 00:00 0 [vdso]\n");
    for (String file : files) {
      maps.append("7f0000000000-7f0000001000 r-xp 00000000 fe:00 1234 ").append(file).append('\n');
    }
    Files.createDirectories(root.resolve("proc/self"));
    Files.writeString(root.resolve("proc/self/maps"), maps);
  }

  private void loaderFile(String name) throws IOException {
    Files.createDirectories(root.resolve("lib"));
    Files.createFile(root.resolve("lib").resolve(name));
  }

  @ParameterizedTest
  @CsvSource({
    "amd64, /usr/lib/x86_64-linux-gnu/libc.so.6, x86_64-linux-gnu",
    "amd64, /lib64/libc-2.17.so, x86_64-linux-gnu",
    "amd64, /lib/ld-musl-x86_64.so.1, x86_64-linux-musl",
    "amd64, /usr/lib/x86_64-linux-musl/libc.so, x86_64-linux-musl",
    "aarch64, /lib/ld-linux-aarch64.so.1, aarch64-linux-gnu",
    "aarch64, /lib/ld-musl-aarch64.so.1, aarch64-linux-musl",
  })
  void theMappedLibraryDecides(String arch, String file, String platform) throws IOException {
    maps("/opt/java/lib/server/libjvm.so", file);
    assertEquals(platform, NativeFile.platform(arch, root));
  }

  @Test
  void muslThatIsOnlyInstalledIsNotTaken() throws IOException {
    maps("/usr/lib/x86_64-linux-gnu/libc.so.6");
    loaderFile("ld-musl-x86_64.so.1");
    assertEquals("x86_64-linux-gnu", NativeFile.platform("amd64", root));
  }

  @Test
  void withoutMapsTheLoaderFileDecides() throws IOException {
    assertEquals("x86_64-linux-gnu", NativeFile.platform("amd64", root));
    loaderFile("ld-musl-x86_64.so.1");
    assertEquals("x86_64-linux-musl", NativeFile.platform("amd64", root));
    assertEquals("aarch64-linux-gnu", NativeFile.platform("aarch64", root));
  }

  @Test
  void anotherProcessorIsRefusedByName() {
    UnsatisfiedLinkError error =
        assertThrows(UnsatisfiedLinkError.class, () -> NativeFile.platform("riscv64", root));
    assertTrue(error.getMessage().contains("riscv64"), error.getMessage());
    assertTrue(error.getMessage().contains("-Djna.library.path=DIR"), error.getMessage());
  }

  @Test
  void thisMachineHasALibrary() {
    assertTrue(
        NativeFile.class.getResource(NativeFile.resource(NativeFile.platform())) != null,
        NativeFile.platform());
  }
}
