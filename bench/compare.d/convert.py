# SPDX-License-Identifier: Apache-2.0
"""Row P4: copying an image into another, the start of the process counted."""
import os
import subprocess
import time

import files
from table import OURS, interleaved, table


def _sources(setting):
    mib = setting.size(2048, 128)
    folder = setting.folder
    raw = files.disk_like(folder / "disk.raw", mib)
    qcow2 = folder / "disk.qcow2"
    files.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    compressed = folder / "compressed.qcow2"
    files.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", "-m", os.cpu_count(), raw, compressed)
    middle, top = folder / "middle.qcow2", folder / "top.qcow2"
    for lower, upper, seed in ((qcow2, middle, 2), (middle, top, 3)):
        files.qemu_img("create", "-q", "-f", "qcow2", "-b", lower, "-F", "qcow2", upper)
        script = [f"write -q -P {seed} {at}M 1M" for at in range(seed, mib, 16)]
        subprocess.run(["qemu-io", str(upper)], input="\n".join(script), text=True, check=True, stdout=subprocess.DEVNULL)
    return {
        "raw to raw, sparse": (["-f", "raw", "-O", "raw"], raw, [raw]),
        "qcow2 to qcow2": (["-f", "qcow2", "-O", "qcow2"], qcow2, [qcow2]),
        "chain of 3 to qcow2": (["-f", "qcow2", "-O", "qcow2"], top, [top, middle, qcow2]),
        "raw to zlib": (["-f", "raw", "-O", "qcow2", "-c"], raw, [raw]),
        "raw to zstd": (["-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"], raw, [raw]),
        "zlib to raw": (["-f", "qcow2", "-O", "raw"], compressed, [compressed]),
    }


def run(setting):
    programs = {OURS: [str(setting.tidemark), "image"], "qemu-img": ["qemu-img"]}
    sources = _sources(setting)
    target = setting.folder / "target"
    texts = []
    for title, cold in (("page cache warm", False), ("source not cached, target flushed", True)):
        lines = []
        for workload, (options, source, read) in sources.items():
            if not setting.wants(workload):
                continue

            def measure(program):
                target.unlink(missing_ok=True)
                for path in read:
                    if cold:
                        files.evict(path)
                    else:
                        subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)
                begin = time.perf_counter()
                words = [*program, "convert", "-m", "8", "-W", *options, source, target]
                if subprocess.run(words).returncode != 0:
                    return 0  # it said why
                if cold:
                    with open(target, "rb") as file:
                        os.fsync(file.fileno())
                return (time.perf_counter() - begin) * 1000

            lines.append((workload, interleaved(programs, measure, workload, setting.rounds(), warm_up=not setting.quick)))
        if lines:
            texts.append(table(f"convert, {title}", "ms", lines, False))
    target.unlink(missing_ok=True)
    return "## P4: `image convert -m 8 -W`\n\n" + "\n".join(texts)
