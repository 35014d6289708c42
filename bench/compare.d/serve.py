# SPDX-License-Identifier: Apache-2.0
"""Rows P1 to P3: images over NBD, loaded by fio."""
import contextlib
import json
import os
import subprocess

import files
import servers
from table import OURS, interleaved, part, table, undisturbed

#            name                         fio's words
RANDOM = {
    "4k random read, q1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
    "4k random read, q16": ["--rw=randread", "--bs=4k", "--iodepth=16"],
    "4k random read, q16 × 4 connections": ["--rw=randread", "--bs=4k", "--iodepth=16", "--numjobs=4"],
    "4k random write, q1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    "4k random write, q16": ["--rw=randwrite", "--bs=4k", "--iodepth=16"],
    "4k random write, q16 × 4 connections": ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--numjobs=4"],
}
SEQUENTIAL = {
    "256k read, q1": ["--rw=read", "--bs=256k", "--iodepth=1"],
    "256k write, q1": ["--rw=write", "--bs=256k", "--iodepth=1"],
    "1M read, q4": ["--rw=read", "--bs=1m", "--iodepth=4"],
    "1M write, q4": ["--rw=write", "--bs=1m", "--iodepth=4"],
}
TURNS = 3  # of a second, of each server in each pass
PAST_THE_CACHE = {
    OURS: ["--cache", "none"],
    "qemu-nbd": ["--cache=none", "--aio=native"],
    "qemu-nbd io_uring": ["--cache=none"],  # the rest is in its name
}


def fio(path, words, mib, timed_seconds=None):
    """Requests per second and MiB per second."""
    limits = ["--time_based", f"--runtime={timed_seconds}s"] if timed_seconds else []
    command = ["fio", "--name=load", "--ioengine=nbd", f"--uri={servers.uri(path)}", f"--size={mib}m", "--thread",
               "--group_reporting", "--randrepeat=0", "--norandommap", "--output-format=json", *words, *limits]
    run = subprocess.run(command, capture_output=True, text=True)
    with contextlib.suppress(ValueError, LookupError):
        job = json.loads(run.stdout[run.stdout.index("{"):])["jobs"][0]
        if not job["error"] and (job["read"]["io_bytes"] or job["write"]["io_bytes"]):
            side = job["write" if job["write"]["io_bytes"] else "read"]
            return side["iops"], side["bw_bytes"] / files.MIB
    raise SystemExit(f"bench/compare: {' '.join(command)}: {run.stdout[-400:]}{run.stderr[-400:]}")


def _warm(file):
    """Reads a file through. A kernel that puts cold pages out (DAMON) would else make the servers whose turn is last read from the disk."""
    with open(file, "rb", buffering=0) as opened:
        while opened.read(files.MIB):
            pass


def _in_turns(setting, title, names, file, format, workloads, mib, read_only=False, past_the_cache=False):
    """Tables of servers that have one file open together, and are loaded a second at a time, in several passes.

    One file, because which pages a file got makes a fifth of a difference. Short turns, because the host of a virtual machine may
    slow it by half for seconds. Passes with new processes, because it may do so for minutes, and one process more than another."""
    wanted = {workload: words for workload, words in workloads.items() if setting.wants(workload)}
    figures, costs = ({workload: {name: [] for name in names} for workload in wanted} for _ in range(2))

    def measure(one, workload):
        path, process = one
        before = servers.cpu_seconds(process)
        requests, mibs = fio(path, wanted[workload], mib, 1)
        return requests if "4k" in workload else mibs, (servers.cpu_seconds(process) - before) * 1e6 / requests

    for _ in range(setting.rounds() if wanted else 0):
        with contextlib.ExitStack() as stack:
            served = {}
            for name in names:
                path = setting.folder / f"{name.replace(' ', '-')}.sock"
                words = servers.command(name, setting.tidemark, path, file, format, read_only, locked=False,
                                        more=PAST_THE_CACHE[name] if past_the_cache else ())
                served[name] = path, stack.enter_context(servers.serving(words, path, file))
            for workload in wanted:
                if not past_the_cache:
                    _warm(file)
                found = interleaved(served, lambda one: undisturbed(lambda: measure(one, workload)), workload,
                                    setting.size(TURNS, 1), warm_up=setting.size(1, 0))
                for name in names:
                    figures[workload][name] += part(found, 0)[name]
                    costs[workload][name] += part(found, 1)[name]
    return (_tables(title, list(figures.items())) + "\n"
            + table(f"{title}: processor time of the server", "microseconds a request", list(costs.items()), False, digits=1)
            ) if wanted else ""


def _present(setting, names, format):
    return [name for name in names if servers.command(name, setting.tidemark, "s", "f", format)]


def _tables(title, lines):
    small = [line for line in lines if "4k" in line[0]]
    large = [line for line in lines if "4k" not in line[0]]
    texts = [table(title, "requests per second", small, True)] if small else []
    return "\n".join(texts + ([table(title, "MiB/s", large, True)] if large else []))


def raw(setting):
    mib = setting.size(1024, 128)
    names = _present(setting, [OURS, "qemu-nbd", "qemu-nbd io_uring", "qemu-storage-daemon", "nbdkit"], "raw")
    first = files.incompressible(setting.folder / "first.raw", mib)
    file = files.copy_in_small_pages(first, setting.folder / "disk.raw")
    tables = _in_turns(setting, "raw", names, file, "raw", RANDOM | SEQUENTIAL, mib)
    _remove([first, file])
    return "## P1: raw over NBD, page cache warm\n\n" + tables


def qcow2(setting):
    mib = setting.size(1024, 128)
    names = _present(setting, [OURS, "qemu-nbd", "qemu-storage-daemon"], "qcow2")
    title = "## P2: qcow2 over NBD, page cache warm\n\n"
    allocating = _allocating(setting, names)
    if not any(map(setting.wants, RANDOM | SEQUENTIAL)):
        return title + allocating
    source = files.incompressible(setting.folder / "first.raw", mib)
    first, full, top = (setting.folder / name for name in ("first.qcow2", "full.qcow2", "top.qcow2"))
    files.qemu_img("convert", "-f", "raw", "-O", "qcow2", source, first)
    files.copy_in_small_pages(first, full)
    files.qemu_img("create", "-q", "-f", "qcow2", "-b", full, "-F", "qcow2", top)
    reads = {name: words for name, words in (RANDOM | SEQUENTIAL).items() if "read" in name}
    tables = [_in_turns(setting, "64 KiB clusters, all of them data", names, full, "qcow2", RANDOM | SEQUENTIAL, mib),
              _in_turns(setting, "the same beneath an empty overlay", names, top, "qcow2", reads, mib, read_only=True), allocating]
    _remove([source, first, full, top])
    return title + "\n".join(filter(None, tables))


def _allocating(setting, names):
    """Each write takes a new cluster: one pass over a new image, which is made and opened for each turn.

    The first part of the disk warms the server up, because a JVM's first requests are slow: 16,384 writes that allocate. What is
    measured is less than where the kernel begins to write back. The image is emptied before the server ends (servers.forget)."""
    warmed, clusters = 16384, setting.size(16384, 8192)
    workloads = {
        "4k, q1": ["--rw=write:60k", "--bs=4k", "--iodepth=1"],
        "4k, q16": ["--rw=write:60k", "--bs=4k", "--iodepth=16"],
        "64k, q1": ["--rw=write", "--bs=64k", "--iodepth=1"],
        "64k, q16": ["--rw=randwrite", "--bs=64k", "--iodepth=16"],
    }
    image, path = setting.folder / "new.qcow2", setting.folder / "new.sock"

    def one(words, options):
        def measure(name):
            files.qemu_img("create", "-q", "-f", "qcow2", *options, image, f"{(warmed + clusters) // 16}M")
            with servers.serving(servers.command(name, setting.tidemark, path, image, "qcow2"), path, image) as process:
                fio(path, workloads["4k, q16"] + [f"--number_ios={warmed}"], warmed // 16)
                files.touch_memory((clusters // 16) + 256)
                count = clusters // (4 if words[0] == "--rw=randwrite" else 1)  # few clusters twice
                figure = fio(path, [*words, f"--number_ios={count}", f"--offset={warmed // 16}m"], clusters // 16)[0]
                servers.forget(process, image)
            image.unlink()
            os.sync()  # whatever is left to be done for it, before the next turn
            return figure
        return measure

    text = ""
    for title, options in (("writes that allocate", []),
                           ("writes that allocate, subclusters", ["-o", "extended_l2=on,cluster_size=128k"])):
        lines = [(workload, interleaved({name: name for name in names}, one(words, options), f"{title}, {workload}", setting.rounds()))
                 for workload, words in workloads.items() if setting.wants(f"{title}, {workload}")]
        if lines:
            text += table(title, "requests per second", lines, True) + "\n"
    return text.removesuffix("\n")


def direct(setting):
    mib = setting.size(1024, 128)
    raw = files.incompressible(setting.folder / "direct.raw", mib)
    image = setting.folder / "direct.qcow2"
    files.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    files.sync(image)
    tables = [_in_turns(setting, title, _present(setting, PAST_THE_CACHE, format), file, format, workloads, mib, past_the_cache=True)
              for title, file, format, workloads in (("raw, O_DIRECT", raw, "raw", RANDOM | SEQUENTIAL),
                                                     ("qcow2, O_DIRECT, clusters that are there", image, "qcow2", RANDOM))]
    _remove([raw, image])
    return "## P3: past the page cache\n\n" + "\n".join(filter(None, tables))


def _remove(paths):
    for path in paths:
        path.unlink(missing_ok=True)
