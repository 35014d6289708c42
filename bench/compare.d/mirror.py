# SPDX-License-Identifier: Apache-2.0
"""Row P5: a live copy under a guest that writes: how soon it is ready, and what the guest's requests take meanwhile.

Ours is a daemon, asked by virsh; the peer is blockdev-mirror in qemu-storage-daemon, asked by QMP, with its defaults.
Both copy a qcow2 image full of data into a new one while fio writes 4 KiB blocks at random over the guest's export.
"""
import contextlib
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import files
import servers
from table import OURS, interleaved, part, table

PEER = "qemu-storage-daemon"
NEVER_SECONDS = 60
#            name                      fio's words
WRITERS = {
    "500 writes/s, q1": ["--iodepth=1", "--rate_iops=500"],
    "without pause, q1": ["--iodepth=1"],
    "without pause, q16": ["--iodepth=16"],
}


@contextlib.contextmanager
def _ours(setting, image, target):
    """Yields the guest's URI and what starts the copy and returns when it is ready."""
    with servers.daemon(setting) as (virsh, guest):
        xml = setting.folder / "domain.xml"
        xml.write_text(f"<domain type='tidemark'><name>vm</name><devices><disk type='file' device='disk'>"
                       f"<driver name='qemu' type='qcow2'/><source file='{image}'/>"
                       f"<target dev='vda' bus='virtio'/></disk></devices></domain>")
        subprocess.run([*virsh, "create", xml], check=True, stdout=subprocess.DEVNULL)
        events = subprocess.Popen([*virsh, "event", "vm", "--event", "block-job-2", "--loop"],
                                  stdout=subprocess.PIPE, text=True)

        def copy():
            subprocess.run([*virsh, "blockcopy", "vm", "vda", target, "--format", "qcow2", "--transient-job",
                            "--reuse-external"], check=True, stdout=subprocess.DEVNULL)
            return _within(lambda: "ready" in events.stdout.readline())

        try:
            yield guest("vm"), copy
        finally:
            servers.stop(events)
            subprocess.run([*virsh, "destroy", "vm"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def _peer(setting, image, target):
    path, monitor = setting.folder / "peer.sock", setting.folder / "peer.qmp"
    words = servers.command(PEER, None, path, image, "qcow2")
    words += ["--chardev", f"socket,id=m,path={monitor},server=on,wait=off", "--monitor", "chardev=m"]
    with servers.serving(words, path, image), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(monitor))
        connection.settimeout(1)
        lines = connection.makefile("rw")
        lines.readline()

        def ask(command, **arguments):
            lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            lines.flush()
            answer = {}
            while "return" not in answer:
                answer = json.loads(lines.readline())
                if "error" in answer:
                    raise SystemExit(f"bench/compare: {command}: {answer['error']['desc']}")

        def ready():
            try:
                return "BLOCK_JOB_READY" in lines.readline()
            except TimeoutError:
                raise SystemExit("bench/compare: the monitor's stream broke") from None

        def copy():
            connection.settimeout(None)
            ask("blockdev-add", driver="qcow2", **{"node-name": "target"},
                file={"driver": "file", "filename": str(target)})
            ask("blockdev-mirror", device="disk", target="target", sync="full", **{"job-id": "copy"})
            connection.settimeout(NEVER_SECONDS + 5)
            return _within(ready)

        ask("qmp_capabilities")
        yield servers.uri(path), copy


def _within(ready):
    """Asks until it is so; False when it never is. What asks may block: an alarm ends it."""

    def never(*_):
        raise InterruptedError

    old = signal.signal(signal.SIGALRM, never)
    signal.alarm(NEVER_SECONDS)
    try:
        while not ready():
            pass
        return True
    except InterruptedError:
        return False
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def _latencies(prefix, since_ms, until_ms):
    """Microseconds of each request that ended in that time, ascending."""
    found = []
    for log in pathlib.Path(prefix).parent.glob(pathlib.Path(prefix).name + "_clat*.log"):
        for line in log.read_text().splitlines():
            ended, nanos = line.split(",")[:2]
            if since_ms <= int(ended) <= until_ms:
                found.append(int(nanos) / 1000)
        log.unlink()
    return sorted(found)


def _measure(setting, contestant, source, mib, words):
    """Seconds to ready (0: never), the median and the 99th of 100 requests in microseconds."""
    image, target = setting.folder / "guest.qcow2", setting.folder / "target.qcow2"
    files.copy(source, image)
    files.qemu_img("create", "-q", "-f", "qcow2", target, f"{mib}M")
    prefix = setting.folder / "writer"
    with contestant(setting, image, target) as (uri, copy):
        command = ["fio", "--name=guest", "--ioengine=nbd", f"--uri={uri}", f"--size={mib}m", "--thread", "--rw=randwrite",
                   "--bs=4k", "--norandommap", "--randrepeat=0", "--time_based", f"--runtime={NEVER_SECONDS + 30}s",
                   f"--write_lat_log={prefix}", "--log_unix_epoch=1", *words]
        guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(2)  # the writer is at its speed
        since = time.time()
        is_ready = copy()
        until = time.time()
        guest.send_signal(signal.SIGINT)
        guest.wait(60)
    image.unlink()
    target.unlink()
    taken = _latencies(prefix, since * 1000, until * 1000)
    for log in setting.folder.glob("writer_*"):
        log.unlink()
    if not taken:
        raise SystemExit("bench/compare: the guest wrote nothing while the copy ran")
    return until - since if is_ready else 0, taken[len(taken) // 2], taken[len(taken) * 99 // 100]


def run(setting):
    mib = setting.size(1024, 128)
    raw = files.incompressible(setting.folder / "first.raw", mib)
    source = setting.folder / "first.qcow2"
    files.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, source)
    raw.unlink()
    contestants = {OURS: _ours}
    if shutil.which(PEER):
        contestants[PEER] = _peer
    ready, middle, slow = [], [], []
    for writer, words in WRITERS.items():
        if not setting.wants(writer):
            continue
        found = interleaved(contestants, lambda one: _measure(setting, one, source, mib, words), writer, setting.rounds())
        for lines, index in (ready, 0), (middle, 1), (slow, 2):
            lines.append((writer, part(found, index)))
    source.unlink()
    return (f"## P5: live copy of {mib} MiB, qcow2 to qcow2, under 4 KiB random writes\n\n"
            + f"A dash: not ready within {NEVER_SECONDS} s in most rounds.\n\n"
            + table("time to ready", "seconds", ready, False, digits=2)
            + "\n" + table("guest's write meanwhile, median", "microseconds", middle, False)
            + "\n" + table("guest's write meanwhile, 99 of 100", "microseconds", slow, False))
