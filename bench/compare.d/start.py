# SPDX-License-Identifier: Apache-2.0
"""Rows P7 and P8: time to start, and memory."""
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time

import files
import serve
import servers
from table import OURS, interleaved, table


def _run(words):
    begin = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1000


def _to_greeting(words, path):
    path.unlink(missing_ok=True)
    begin = time.perf_counter()
    process = servers.launch(words)
    try:
        servers.greeting(path, process, begin + servers.START_SECONDS).close()
        return (time.perf_counter() - begin) * 1000
    finally:
        servers.stop(process)


def _daemon(tidemark, folder):
    """Until `ready` and an answered call. The call is our own client's: another program's start would be measured with it."""
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.perf_counter()
    process = subprocess.Popen([tidemark, "daemon", "--state-dir", folder / "state", "--run-dir", folder / "run"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(folder / "run/libvirt-sock"))
            # libvirt's AUTH_LIST (66): length, program, version, procedure, call, serial, ok
            connection.sendall(struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 1, 0))
            connection.recv(28, socket.MSG_WAITALL)
        return (time.perf_counter() - begin) * 1000
    finally:
        servers.stop(process)


def times(setting):
    folder = setting.folder
    raw, qcow2, path = folder / "start.raw", folder / "start.qcow2", folder / "start.sock"
    files.qemu_img("create", "-q", "-f", "raw", raw, "1G")
    files.qemu_img("create", "-q", "-f", "qcow2", qcow2, "1G")

    def turns(contestants, measure, what):
        return interleaved(contestants, measure, what, setting.rounds(9), warm_up=not setting.quick)

    lines = []
    info = {OURS: [setting.tidemark, "image", "info", qcow2], "QEMU": ["qemu-img", "info", qcow2]}
    lines.append(("`image info`", turns(info, _run, "image info")))
    for format, file in (("raw", raw), ("qcow2", qcow2)):
        both = {"QEMU" if name != OURS else name: servers.command(name, setting.tidemark, path, file, format)
                for name in (OURS, "qemu-nbd")}
        lines.append((f"`export serve`, {format}, to its greeting",
                      turns(both, lambda words: _to_greeting(words, path), f"serve {format}")))
    ours = {OURS: lambda: _daemon(setting.tidemark, folder / "daemon")}
    lines.append(("`daemon`, to an answered call", turns(ours, lambda start: start(), "daemon")))
    return "## P7: start-up\n\n" + table("through `./tidemark`, the shell included", "ms", lines, False, summary=False)


def _mib(process, field):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field + ":"))) / 1024


def _own(process):
    """Without pages of files, which are the page cache's: large reads map the image."""
    return _mib(process, "RssAnon") + _mib(process, "RssShmem")


def _idle_client(path):
    """A client that has opened the export and asks nothing."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.recv(18, socket.MSG_WAITALL)
    connection.sendall(struct.pack(">I8sIIIH", 3, b"IHAVEOPT", 7, 6, 0, 0))  # NBD_OPT_GO, empty name
    while True:
        _, _, kind, length = struct.unpack(">QIII", connection.recv(20, socket.MSG_WAITALL))
        connection.recv(length, socket.MSG_WAITALL)
        if kind != 3:  # NBD_REP_INFO
            return connection


def memory(setting):
    mib, folder = 256, setting.folder
    file = files.incompressible(folder / "memory.raw", mib)
    idle, busy, start = {}, {}, {}
    for name in serve._present(setting, [OURS, "qemu-nbd", "nbdkit"], "raw"):
        path = folder / "memory.sock"
        words = servers.command(name, setting.tidemark, path, file, "raw")
        if name == "qemu-nbd":
            words[words.index("-e") + 1] = "1000"
        with servers.serving(words, path, file) as process:
            time.sleep(1)
            start[name] = [_mib(process, "VmRSS")]
            before = _own(process)
            clients = [_idle_client(path) for _ in range(500)]
            time.sleep(1)
            idle[name] = [(_own(process) - before) * 1024 / len(clients)]
            for client in clients:
                client.close()
        with servers.serving(words, path, file) as process:
            time.sleep(1)
            before = _own(process)
            load = subprocess.Popen(
                ["fio", "--name=load", "--ioengine=nbd", f"--uri={servers.uri(path)}", f"--size={mib}m", "--thread", "--rw=randrw",
                 "--bs=128k", "--iodepth=16", "--numjobs=64", "--time_based", "--runtime=4s", "--group_reporting"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            most = before
            while load.poll() is None:
                most = max(most, _own(process))
                time.sleep(0.05)
            busy[name] = [(most - before) / 64]
    file.unlink()
    lines = [("a server that just started, MiB", start), ("each of 500 idle connections, KiB of its own", idle),
             ("each of 64 connections with 16 requests of 128 KiB, MiB of its own", busy)]
    return "## P8: memory of `export serve`\n\n" + table("resident", "the unit named", lines, False, digits=2, summary=False)
