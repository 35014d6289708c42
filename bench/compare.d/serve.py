# SPDX-License-Identifier: Apache-2.0
"""Rows P1 to P3: images over NBD, loaded by fio."""
import contextlib
import json
import os
import statistics
import subprocess

import files
import servers
from table import OURS, interleaved, table

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
READS = {name: words for name, words in RANDOM.items() if "read" in name}
WRITES = {name: words for name, words in RANDOM.items() if "write" in name}
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


def _in_turns(setting, names, file, format, workloads, mib, read_only=False, more=None):
    """One server at a time on one file, warmed up: which pages a file got makes a fifth of a difference, so none has its own."""
    path = setting.folder / "turn.sock"
    seconds = 1 if setting.quick else 2

    def turn(words, which):
        def measure(name):
            serving = servers.command(name, setting.tidemark, path, file, format, read_only)
            with servers.serving(serving[:-1] + (more or {}).get(name, []) + serving[-1:], path):
                _warm(file)
                fio(path, words, mib, seconds)
                return fio(path, words, mib, seconds)[which]
        return measure

    return [(workload, interleaved(setting, {name: name for name in names},
                                   turn(words, 0 if "4k" in workload else 1), workload, warm_up=False))
            for workload, words in workloads.items() if setting.wants(workload)]


def _present(setting, names, format):
    return [name for name in names if servers.command(name, setting.tidemark, "s", "f", format)]


def _tables(title, lines):
    small = [line for line in lines if "4k" in line[0]]
    large = [line for line in lines if "4k" not in line[0]]
    texts = [table(title, "requests per second", small, True)] if small else []
    return "\n".join(texts + ([table(title, "MiB/s", large, True)] if large else []))


def raw(setting):
    mib = setting.mib(1024, 128)
    names = _present(setting, [OURS, "qemu-nbd", "qemu-nbd io_uring", "qemu-storage-daemon", "nbdkit"], "raw")
    first = files.incompressible(setting.folder / "first.raw", mib)
    file = files.copy_in_small_pages(first, setting.folder / "disk.raw")
    lines = _in_turns(setting, names, file, "raw", RANDOM | SEQUENTIAL, mib)
    _remove([first, file])
    return "## P1: raw over NBD, page cache warm\n\n" + _tables("raw", lines)


def qcow2(setting):
    mib = setting.mib(1024, 128)
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
    text = title + _tables("64 KiB clusters, all of them data", _in_turns(setting, names, full, "qcow2", RANDOM | SEQUENTIAL, mib))
    sequential = {name: words for name, words in SEQUENTIAL.items() if "read" in name}
    text += "\n" + _tables("the same beneath an empty overlay",
                           _in_turns(setting, names, top, "qcow2", READS | sequential, mib, read_only=True))
    _remove([source, first, full, top])
    return text + "\n" + allocating


def _allocating(setting, names):
    """Each write takes a new cluster: one pass over a new image, which is made and opened for each turn.

    The first part of the disk warms the server up, because a JVM's first requests are slow: 16,384 writes that allocate. What is
    measured is less than where the kernel begins to write back. The image is emptied before the server ends (servers.forget)."""
    warmed, clusters = 16384, setting.mib(16384, 8192)
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
            with servers.serving(servers.command(name, setting.tidemark, path, image, "qcow2"), path) as process:
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
        lines = [(workload, interleaved(setting, {name: name for name in names}, one(words, options),
                                        f"{title}, {workload}", warm_up=False))
                 for workload, words in workloads.items() if setting.wants(f"{title}, {workload}")]
        if lines:
            text += table(title, "requests per second", lines, True) + "\n"
    return text.removesuffix("\n")


def direct(setting):
    mib = setting.mib(1024, 128)
    raw = files.incompressible(setting.folder / "direct.raw", mib)
    image = setting.folder / "direct.qcow2"
    files.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    reads = {name: words for name, words in (RANDOM | SEQUENTIAL).items() if "read" in name}
    text = ("## P3: past the page cache\n\n" + _direct_reads(setting, raw, "raw", reads, mib)
            + "\n" + _direct_reads(setting, image, "qcow2", READS, mib))
    writes = _in_turns(setting, _present(setting, PAST_THE_CACHE, "qcow2"), image, "qcow2", WRITES, mib, more=PAST_THE_CACHE)
    _remove([raw, image])
    return text + "\n" + _tables("qcow2, O_DIRECT, writes to clusters that are there", writes)


def _direct_reads(setting, file, format, workloads, mib):
    """All servers have the file open, read-only, the whole time: so their processor time is that of servers that are warm."""
    lines, costs = [], []
    with contextlib.ExitStack() as stack:
        served = {}
        for name in _present(setting, PAST_THE_CACHE, format):
            path = setting.folder / f"{name.replace(' ', '-')}.sock"
            words = servers.command(name, setting.tidemark, path, file, format, True)
            process = stack.enter_context(servers.serving(words[:-1] + PAST_THE_CACHE[name] + words[-1:], path))
            served[name] = name, path, process
        for workload, words in workloads.items():
            if setting.wants(workload):
                which, spent = 0 if "4k" in workload else 1, {name: [] for name in served}

                def measure(one):
                    name, path, process = one
                    seconds, before = 1 if setting.quick else 2, servers.cpu_seconds(process)
                    figures = fio(path, words, mib, seconds)
                    spent[name].append((servers.cpu_seconds(process) - before) * 1e6 / (figures[0] * seconds))
                    return figures[which]
                lines.append((workload, interleaved(setting, served, measure, workload)))
                costs.append((workload, {name: statistics.median(values[-setting.rounds:]) for name, values in spent.items()}))
    return (_tables(f"{format}, O_DIRECT", lines) + "\n"
            + table(f"{format}, processor time of the server", "microseconds a request", costs, False, digits=1))


def _remove(paths):
    for path in paths:
        path.unlink(missing_ok=True)
