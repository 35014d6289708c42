# SPDX-License-Identifier: Apache-2.0
"""Files to work on."""
import mmap
import os
import pathlib
import random
import subprocess

MIB = 1 << 20


def incompressible(path, mib):
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    return path


def disk_like(path, mib, seed=1):
    """A sparse raw disk as systems have them: half holes; of the rest half random, half text-like bytes."""
    pick = random.Random(seed)
    words = [bytes(pick.choices(b"abcdefghijklmnopqrstuvwxyz", k=pick.randint(2, 9))) for _ in range(2000)]
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
        for at in range(0, mib, 4):
            kind = pick.randrange(4)
            if kind == 0:
                os.pwrite(file.fileno(), os.urandom(4 * MIB), at * MIB)
            elif kind == 1:
                text = b" ".join(pick.choices(words, k=180_000))[:MIB]
                for part in range(4):
                    os.pwrite(file.fileno(), text[part * 997:] + text[:part * 997], (at + part) * MIB)
        os.fsync(file.fileno())
    return path


def sync(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def evict(path):
    sync(path)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_in_small_pages(source, target):
    """A copy that lies in the page cache in pages of 4 KiB. Written in larger pieces it would lie there in large folios, and
    then a 4 KiB overwrite costs any server tens of microseconds in the kernel, which hides what is measured. It is on the disk
    too when this returns, so that nothing of it is written back while others are measured."""
    with open(source, "rb") as old, open(target, "wb", buffering=0) as new:
        while page := old.read(4096):
            new.write(page)
        os.fsync(new.fileno())
    return pathlib.Path(target)


def copy(source, target):
    subprocess.run(["cp", "--sparse=auto", "--reflink=never", source, target], check=True)
    return pathlib.Path(target)


def touch_memory(mib):
    """Uses that much memory and gives it back, for who comes next. Under a hypervisor that is told of free pages, pages that were
    free for seconds are not there: new ones in the page cache then cost three times as much, now in one turn, now in another."""
    mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000).close()  # MAP_POPULATE


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
