# SPDX-License-Identifier: Apache-2.0
"""NBD servers: ours and those that are installed, each a process in the foreground with a unix socket."""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

from table import OURS

START_SECONDS = 30


def command(name, tidemark, path, file, format, read_only=False, locked=True, more=()):
    """How `name` serves a file, with `more` options; None when it cannot or is not installed. Not locked, several may have it open."""
    file, path = str(file), str(path)
    layers = f"driver={format},file.driver=file,file.filename={file},file.locking=off"
    image = ["-f", format, file] if locked else ["--image-opts", layers]
    if name == OURS:
        return [str(tidemark), "export", "serve", "-t", "-e", "0", "-k", path, *["-r"] * read_only, *more, *image]
    if name.startswith("qemu-nbd"):
        aio = ["--aio=io_uring"] if name.endswith("io_uring") else []
        return _installed("qemu-nbd", "-t", "-e", "64", "-k", path, *aio, *["-r"] * read_only, *more, *image)
    if name == "qemu-storage-daemon":
        access = f"read-only={'on' if read_only else 'off'},auto-read-only=off"
        layer = [] if format == "raw" else ["--blockdev", f"{format},node-name=disk,file=file,{access}"]
        node = "file" if format == "raw" else "disk"
        return _installed(
            name, "--blockdev", f"file,node-name=file,filename={file},locking={'auto' if locked else 'off'},{access}", *layer,
            "--nbd-server", f"addr.type=unix,addr.path={path},max-connections=0",
            "--export", f"nbd,id=e,node-name={node},name=,writable={'off' if read_only else 'on'}")
    if name == "nbdkit" and format == "raw":
        return _installed("nbdkit", "-f", "-U", path, *["-r"] * read_only, "file", file)
    return None


def _installed(program, *words):
    return [program, *words] if shutil.which(program) else None


def uri(path):
    return f"nbd+unix:///?socket={urllib.parse.quote(str(path))}"


def greeting(path, process, deadline):
    """Waits for the first bytes of the handshake. Returns the connection."""
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"bench/compare: {' '.join(process.args)}: ended with {process.returncode}: {_said(process)}")
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            if connection.recv(18, socket.MSG_WAITALL)[:8] == b"NBDMAGIC":
                return connection
        except OSError:
            pass
        connection.close()
        time.sleep(0.0005)
    raise SystemExit(f"bench/compare: {process.args[0]} did not serve within {START_SECONDS} s")


def launch(words):
    errors = tempfile.TemporaryFile()
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
    process.errors = errors
    return process


def _said(process):
    process.errors.seek(0)
    return process.errors.read(2000).decode(errors="replace").strip()


def stop(process):
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def forget(process, image):
    """Ends a server's work on an image that is thrown away: it is stopped, and the image emptied before it is closed, so that no more of
    it is written back. What was synced takes its time: qemu-nbd syncs when a client leaves, and ext4 with -o discard and no journal then
    gives the extents of scattered clusters back one by one, a millisecond each."""
    process.send_signal(signal.SIGSTOP)
    os.truncate(image, 0)


def _forget_log(image):
    """What our server, killed, leaves for the next who opens the image: nobody will."""
    with contextlib.suppress(OSError):
        status = os.stat(image)
        name = f"tidemark/log/qcow2-{status.st_dev:x}-{status.st_ino}.log"
        os.unlink(os.path.join("/run" if os.getuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/run"), name))


@contextlib.contextmanager
def serving(words, path, image):
    """The process, once it serves the image. Killed at the end: every server would else flush an image that is thrown away, gigabytes of
    it, and whoever is measured next would share the disk with that."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    process = launch(words)
    try:
        greeting(path, process, time.perf_counter() + START_SECONDS).close()
        yield process
    finally:
        process.kill()
        process.wait()
        _forget_log(image)


def cpu_seconds(process):
    """What all threads of a process have used so far, in user mode and in the kernel."""
    with open(f"/proc/{process.pid}/stat") as stat:
        words = stat.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def daemon(setting):
    """Our daemon with folders of its own, which go with it. Yields virsh's words, and a domain's guest URI for its name."""
    run = setting.folder / "daemon"
    errors = open(setting.folder / "daemon.log", "wb")
    process = subprocess.Popen([setting.tidemark, "daemon", "--state-dir", run / "state", "--run-dir", run],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        if not process.stdout.readline().startswith("ready"):
            raise SystemExit("bench/compare: the daemon did not start, see daemon.log")
        yield (["virsh", "-q", "-c", f"qemu+unix:///system?socket={run}/libvirt-sock"],
               lambda name: f"nbd+unix:///vda?socket={urllib.parse.quote(str(run))}/guest/{name}.sock")
    finally:
        process.terminate()
        process.wait(60)
        errors.close()
        shutil.rmtree(run, ignore_errors=True)
