# SPDX-License-Identifier: Apache-2.0
"""Row P6: push backups of a running domain into qcow2: all of a disk, then what changed since.

Ours is a daemon, the peer is libvirt with QEMU; the same virsh asks both, from backup-begin to the event of its end. The peer is
taken where TIDEMARK_BENCH_LIBVIRT names its URI (default qemu:///system), and left out where none answers. What changes is 1 MiB at
a time, spread over the disk.
"""
import contextlib
import os
import shutil
import subprocess
import time

import files
import servers
from table import OURS, interleaved, part, table

PEER = "libvirt + QEMU"
PEER_URI = os.environ.get("TIDEMARK_BENCH_LIBVIRT", "qemu:///system")
INCREMENTS = {"increment, 0.1 %": 0.001, "increment, 1 %": 0.01, "increment, 10 %": 0.1}
FULL = "full"
MOST_SECONDS = 900  # of one backup; then the row fails


def _domain(kind, name, image):
    return (f"<domain type='{kind}'><name>{name}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os><devices>"
            f"<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='{image}'/>"
            f"<target dev='vda' bus='virtio'/></disk></devices></domain>")


@contextlib.contextmanager
def _running(virsh, setting, kind, image):
    """Yields the domain's name."""
    name = f"tidemark-bench-{os.getpid()}"
    xml = setting.folder / "domain.xml"
    xml.write_text(_domain(kind, name, image))
    subprocess.run([*virsh, "create", xml], check=True, stdout=subprocess.DEVNULL)
    try:
        yield name
    finally:
        subprocess.run([*virsh, "destroy", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def _ours(setting, image):
    """Yields virsh's words, the domain's name, and what writes at offsets."""
    with servers.daemon(setting) as (virsh, guest), _running(virsh, setting, "tidemark", image) as name:
        def write(offsets):
            words = [word for at in offsets for word in ("-c", f"write -P 7 {at} 1M")]
            subprocess.run(["qemu-io", "-f", "raw", *words, guest(name)], check=True, stdout=subprocess.DEVNULL)

        yield virsh, name, write


@contextlib.contextmanager
def _peer(setting, image):
    virsh = ["virsh", "-q", "-c", PEER_URI]
    with _running(virsh, setting, "qemu", image) as name:

        def write(offsets):
            for at in offsets:
                subprocess.run([*virsh, "qemu-monitor-command", name, "--hmp",
                                f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 7 {at} 1M"'],
                               check=True, stdout=subprocess.DEVNULL)

        yield virsh, name, write


def _back_up(virsh, name, setting, since, checkpoint):
    """Seconds of one backup into a new file: until its end is told, and until the file would survive a power cut."""
    target = setting.folder / "backup.qcow2"
    backup, moment = setting.folder / "backup.xml", setting.folder / "checkpoint.xml"
    backup.write_text("<domainbackup>" + (f"<incremental>{since}</incremental>" if since else "")
                      + f"<disks><disk name='vda' type='file'><target file='{target}'/></disk></disks></domainbackup>")
    moment.write_text(f"<domaincheckpoint><name>{checkpoint}</name></domaincheckpoint>")
    events = subprocess.Popen([*virsh, "event", name, "--event", "job-completed", "--timeout", str(MOST_SECONDS)], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)  # it listens
        begun = time.monotonic()
        subprocess.run([*virsh, "backup-begin", name, backup, moment], check=True, stdout=subprocess.DEVNULL)
        if "job-completed" not in events.stdout.readline():
            raise SystemExit("bench/compare: the backup's end was not told")
        told = time.monotonic() - begun
        files.sync(target)
        kept = time.monotonic() - begun
    finally:
        servers.stop(events)
    if not target.exists():
        raise SystemExit("bench/compare: a backup failed")
    target.unlink()
    return told, kept


def _measure(setting, contestant, source, mib):
    image = setting.folder / "guest.qcow2"
    files.copy(source, image)
    files.sync(image)  # as a guest's disk is that has been there for a while
    with contestant(setting, image) as (virsh, name, write):
        taken = {FULL: _back_up(virsh, name, setting, None, "c0")}
        for number, (what, share) in enumerate(INCREMENTS.items()):
            changes = max(1, round(mib * share))
            write([n * (mib // changes) << 20 for n in range(changes)])
            taken[what] = _back_up(virsh, name, setting, f"c{number}", f"c{number + 1}")
    image.unlink()
    return taken


def _peer_answers():
    return shutil.which("virsh") and subprocess.run(
        ["virsh", "-c", PEER_URI, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def run(setting):
    mib = setting.size(8192, 512)
    raw = files.incompressible(setting.folder / "first.raw", mib)
    source = setting.folder / "first.qcow2"
    files.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, source)
    raw.unlink()
    contestants = {OURS: _ours}
    if _peer_answers():
        contestants[PEER] = _peer
    found = interleaved(contestants, lambda one: _measure(setting, one, source, mib), "backups", setting.rounds())
    source.unlink()

    def lines(end):
        return [(what, part(part(found, what), end)) for what in (FULL, *INCREMENTS)]

    return (f"## P6: backups of a running domain's {mib} MiB disk, full of data, into qcow2\n\n"
            "libvirt + QEMU tells the end of a backup, and syncs the file after that; Tidemark syncs, then names the file, then tells.\n\n"
            + table("backup-begin until the file would survive a power cut", "seconds", lines(1), False, digits=2)
            + "\n" + table("backup-begin until its end is told", "seconds", lines(0), False, digits=2))
