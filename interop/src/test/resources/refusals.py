# SPDX-License-Identifier: Apache-2.0
"""refusals.py URI DOMAIN_TYPE DIR: asks for what must be refused, and prints a line for each:
what | virErrorNumber | virErrorDomain | text.  Runs against libvirtd too, with type qemu."""
import hashlib, os, subprocess, sys
import libvirt

URI, TYPE, DIR = sys.argv[1:4]
libvirt.registerErrorHandler(lambda *_: None, None)
conn = libvirt.open(URI)


def path(name):
    return os.path.join(DIR, name)


def qemu_img(*words):
    subprocess.run(("qemu-img",) + words, check=True, capture_output=True)


def overlay(name, backing):
    qemu_img("create", "-f", "qcow2", "-b", path("ok.qcow2"), "-F", "qcow2", path(name))
    qemu_img("rebase", "-u", "-b", path(backing), "-F", "qcow2", path(name))


def changed(name, offset, value):
    data = bytearray(open(path("ok.qcow2"), "rb").read())
    data[offset : offset + 8] = value.to_bytes(8, "big")
    open(path(name), "wb").write(data)


def disk(name, fmt="qcow2", dev="vda"):
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{fmt}'/>"
        f"<source file='{name if name.startswith('/') else path(name)}'/><target dev='{dev}' bus='virtio'/></disk>"
    )


def domain(devices, name="refused", extra="", dtype=TYPE):
    return (
        f"<domain type='{dtype}'><name>{name}</name><memory unit='MiB'>64</memory>"
        f"<os><type arch='x86_64'>hvm</type></os><devices>{devices}</devices>{extra}</domain>"
    )


def refused(what, call):
    try:
        print(f"{what} | NOT REFUSED | {call()}")
    except libvirt.libvirtError as e:
        text = " / ".join(line for line in e.get_error_message().splitlines() if line.strip())
        print(f"{what} | {e.get_error_code()} | {e.get_error_domain()} | {text}")


def start(*devices):
    return lambda: conn.createXML(domain("".join(devices)), 0)


def copy(name):
    return f"<disk type='file'><source file='{path(name)}'/></disk>"


def backup(name, dev="vda"):
    return f"<domainbackup><disks><disk name='{dev}' type='file'><target file='{path(name)}'/></disk></disks></domainbackup>"


def state():
    """Every file with its content, and every domain."""
    files = {n: hashlib.sha256(open(path(n), "rb").read()).hexdigest() for n in sorted(os.listdir(DIR))}
    return files, sorted(d.name() for d in conn.listAllDomains())


qemu_img("create", "-f", "qcow2", path("ok.qcow2"), "8M")
qemu_img("create", "-f", "raw", path("big.raw"), "96M")
with open(path("big.raw"), "r+b") as f:
    f.write(os.urandom(80 << 20))
open(path("junk.qcow2"), "wb").write(b"junk" * 5000)
open(path("empty.qcow2"), "wb").close()
changed("corrupt.qcow2", 40, 0x123456789)
changed("future.qcow2", 72, 1 << 60)
overlay("loop1.qcow2", "loop2.qcow2")
overlay("loop2.qcow2", "loop1.qcow2")
overlay("orphan.qcow2", "gone.qcow2")
before = state()

refused("domain by name", lambda: conn.lookupByName("nope"))
refused("domain by uuid", lambda: conn.lookupByUUIDString("00000000-0000-0000-0000-000000000001"))
refused("domain by id", lambda: conn.lookupByID(99999))
refused("define malformed", lambda: conn.defineXML("<domain"))
refused("define empty", lambda: conn.defineXML(""))
refused("define another root", lambda: conn.defineXML("<foo/>"))
refused("define unknown type", lambda: conn.defineXML(domain(disk("ok.qcow2"), dtype="nope")))
refused("define without name", lambda: conn.defineXML(f"<domain type='{TYPE}'><memory>1</memory></domain>"))
refused("define name with slash", lambda: conn.defineXML(domain(disk("ok.qcow2"), name="a/b")))
refused("define bad uuid", lambda: conn.defineXML(domain("", extra="<uuid>zz</uuid>")))
refused("define one target twice", lambda: conn.defineXML(domain(disk("ok.qcow2") + disk("other.qcow2"))))
refused("define unknown format", lambda: conn.defineXML(domain(disk("ok.qcow2", fmt="zzz"))))
refused("missing image", start(disk("gone.qcow2")))
refused("not qcow2", start(disk("junk.qcow2")))
refused("empty as qcow2", start(disk("empty.qcow2")))
refused("corrupt image", start(disk("corrupt.qcow2")))
refused("feature of the future", start(disk("future.qcow2")))
refused("backing loop", start(disk("loop2.qcow2")))
refused("missing backing file", start(disk("orphan.qcow2")))
refused("one image twice", start(disk("ok.qcow2"), disk("ok.qcow2", dev="vdb")))
print("nothing changed:", state() == before)

dom = conn.defineXML(domain(disk("ok.qcow2") + disk("big.raw", fmt="raw", dev="vdb")))
refused("define under another uuid", lambda: conn.defineXML(
    domain(disk("ok.qcow2"), extra="<uuid>11111111-1111-1111-1111-111111111111</uuid>")))
refused("destroy while off", dom.destroy)
refused("suspend while off", dom.suspend)
refused("job statistics while off", dom.jobStats)
refused("block job while off", lambda: dom.blockJobInfo("vda"))
refused("copy while off", lambda: dom.blockCopy("vda", copy("copy"), {}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB))
refused("backup while off", lambda: dom.backupBegin("<domainbackup/>", None))
refused("checkpoint while off", lambda: dom.checkpointCreateXML("<domaincheckpoint/>"))
refused("size of an unknown disk", lambda: dom.blockInfo("vdz"))
dom.create()
before = state()
TRANSIENT = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
refused("start twice", dom.create)
refused("abort without a job", lambda: dom.blockJobAbort("vda"))
refused("abort on an unknown disk", lambda: dom.blockJobAbort("vdz"))
refused("unknown checkpoint", lambda: dom.checkpointLookupByName("zz"))
refused("checkpoint malformed", lambda: dom.checkpointCreateXML("<domaincheckpoint"))
refused("checkpoint another root", lambda: dom.checkpointCreateXML("<foo/>"))
refused("checkpoint of a raw disk", lambda: dom.checkpointCreateXML("<domaincheckpoint><name>c0</name></domaincheckpoint>"))
refused("backup malformed", lambda: dom.backupBegin("<domainbackup", None))
refused("backup another root", lambda: dom.backupBegin("<foo/>", None))
refused("backup of an unknown disk", lambda: dom.backupBegin(backup("b", dev="vdz"), None))
refused("backup since an unknown checkpoint", lambda: dom.backupBegin(
    f"<domainbackup><incremental>zz</incremental><disks><disk name='vda' type='file'><target file='{path('b')}'/></disk></disks></domainbackup>", None))
refused("backup onto a file", lambda: dom.backupBegin(backup("junk.qcow2"), None))
refused("no backup to describe", dom.backupGetXMLDesc)
refused("no job to abort", dom.abortJob)
refused("copy of an unknown disk", lambda: dom.blockCopy("vdz", copy("copy"), {}, TRANSIENT))
refused("copy of a persistent domain", lambda: dom.blockCopy("vda", copy("copy"), {}, 0))
refused("copy malformed", lambda: dom.blockCopy("vda", "<disk", {}, TRANSIENT))
refused("copy without a source", lambda: dom.blockCopy("vda", "<disk type='file'/>", {}, TRANSIENT))
refused("copy onto a file", lambda: dom.blockCopy("vda", copy("junk.qcow2"), {}, TRANSIENT))
refused("copy onto a missing file", lambda: dom.blockCopy("vda", copy("nofile"), {}, TRANSIENT | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT))
refused("copy with an odd granularity", lambda: dom.blockCopy("vda", copy("copy"), {"granularity": 1000}, TRANSIENT))
refused("copy with an unknown parameter", lambda: dom.blockCopy("vda", copy("copy"), {"nosuch": 1}, TRANSIENT))
print("nothing changed:", state() == before)

dom.blockCopy("vdb", copy("slow.raw"), {"bandwidth": 1}, TRANSIENT)
refused("second copy of a disk", lambda: dom.blockCopy("vdb", copy("copy"), {}, TRANSIENT))
refused("backup of a disk with a copy", lambda: dom.backupBegin(backup("b", dev="vdb"), None))
refused("pivot before ready", lambda: dom.blockJobAbort("vdb", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT))
dom.blockJobAbort("vdb")
os.unlink(path("slow.raw"))
print("nothing changed:", state() == before)

only = "<domaincheckpoint><name>c1</name><disks><disk name='vda'/></disks></domaincheckpoint>"
dom.checkpointCreateXML(only)
refused("checkpoint of a name that is there", lambda: dom.checkpointCreateXML(only))
refused("increment of a disk without the bitmap", lambda: dom.backupBegin(
    f"<domainbackup><incremental>c1</incremental><disks><disk name='vdb' type='file'><target file='{path('b')}'/></disk></disks></domainbackup>", None))
dom.destroy()
refused("undefine with checkpoints", dom.undefine)
dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)

only = libvirt.openReadOnly(URI)
refused("define over a read-only connection", lambda: only.defineXML(domain(disk("ok.qcow2"))))
print("domains left:", [d.name() for d in conn.listAllDomains()])
