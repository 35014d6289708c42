# SPDX-License-Identifier: Apache-2.0
"""lifecycle.py URI READ_ONLY_URI DOMAIN_TYPE DIR: takes a domain through its life with python3-libvirt, copies
and backs up its disk, and prints a line for everything it saw: what it asked, what was answered,
and the events, told apart by `event`. DIR/vda.qcow2 is the disk, 4 MiB of it written.
Runs against libvirtd too, with type qemu."""
import os
import sys
import time

import libvirt

URI, READ_ONLY_URI, TYPE, DIR = sys.argv[1:5]
LIMIT_SECONDS = 60
libvirt.registerErrorHandler(lambda *_: None, None)
libvirt.virEventRegisterDefaultImpl()
seen = []  # events not yet printed


def path(name):
    return os.path.join(DIR, name)


def names(module_prefix):
    """Value to name, for the constants of libvirt that begin so."""
    return {
        getattr(libvirt, n): n[len(module_prefix) :]
        for n in dir(libvirt)
        if n.startswith(module_prefix) and not n.endswith("_LAST")
    }


LIFECYCLE = {
    v: n for v, n in names("VIR_DOMAIN_EVENT_").items() if "_" not in n and not n.startswith("ID")
}
JOB_TYPE = names("VIR_DOMAIN_BLOCK_JOB_TYPE_")
JOB_STATUS = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED: "COMPLETED",
    libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED: "FAILED",
    libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED: "CANCELED",
    libvirt.VIR_DOMAIN_BLOCK_JOB_READY: "READY",
}


def lifecycle(_conn, dom, event, detail, _opaque):
    seen.append(f"event lifecycle {dom.name()} {event} {detail}")


def block_job(_conn, dom, disk, job_type, status, opaque):
    where = os.path.basename(disk)
    seen.append(f"event {opaque} {dom.name()} {where} {JOB_TYPE[job_type]} {JOB_STATUS[status]}")


def job_completed(_conn, dom, params, _opaque):
    seen.append(
        f"event job-completed {dom.name()} operation {params['operation']}"
        f" success {params['success']} disk_total {params['disk_total']}"
    )


def step():
    """Lets libvirt's event loop turn once, for a tenth of a second at most."""
    timer = libvirt.virEventAddTimeout(100, lambda *_: None, None)
    libvirt.virEventRunDefaultImpl()
    libvirt.virEventRemoveTimeout(timer)


def until(what, reached):
    end = time.monotonic() + LIMIT_SECONDS
    while not reached():
        if time.monotonic() > end:
            flush()
            sys.exit(f"no {what} after {LIMIT_SECONDS} s")
        step()


def events(*endings):
    """Waits until an event with each ending came, and prints all that came."""
    for ending in endings:
        until(ending, lambda: any(line.endswith(ending) for line in seen))
    flush()


def flush():
    for line in seen:
        print(line)
    seen.clear()


def refused(what, call):
    try:
        call()
        print(what, "NOT REFUSED")
    except libvirt.libvirtError as e:
        print(what, "refused", e.get_error_code(), e.get_error_message())


def document(name):
    return f"""<domain type='{TYPE}'><name>{name}</name><memory unit='MiB'>16</memory>
      <os><type>hvm</type></os><devices><disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{path("vda.qcow2")}'/>
      <target dev='vda' bus='virtio'/></disk></devices></domain>"""


def main():
    conn = libvirt.open(URI)
    looking = libvirt.openReadOnly(READ_ONLY_URI)
    conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
    conn.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB, block_job, "block-job"
    )
    conn.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, block_job, "block-job-2"
    )
    conn.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, job_completed, None
    )
    print("type", conn.getType(), "alive", conn.isAlive(), "encrypted", conn.isEncrypted())
    print("domains", len(conn.listAllDomains()), conn.numOfDomains(), conn.listDefinedDomains())

    dom = conn.defineXML(document("py"))
    events("lifecycle py 0 0")
    print("persistent", dom.isPersistent(), "active", dom.isActive(), "id", dom.ID())
    print("uuid", dom.UUIDString() == conn.lookupByName("py").UUIDString())
    dom.create()
    events("lifecycle py 2 0")
    print("active", dom.isActive(), "state", dom.state(), "same", conn.lookupByID(dom.ID()) is not None)
    print("backing store", "<backingStore/>" in dom.XMLDesc())
    print("inactive has an id", " id=" in dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).splitlines()[0])
    print("capacity", dom.blockInfo("vda")[0], "requests", dom.blockStats("vda")[0])

    seen_by_reader = looking.lookupByName("py")
    print("read-only", [d.name() for d in looking.listAllDomains()], seen_by_reader.state())
    refused("read-only destroy", seen_by_reader.destroy)
    refused("read-only checkpoint", lambda: seen_by_reader.checkpointCreateXML("<domaincheckpoint/>"))

    copy = f"<disk type='file'><source file='{path('copy.qcow2')}'/><driver type='qcow2'/></disk>"
    dom.blockCopy("vda", copy, {}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    events("block-job py vda.qcow2 COPY READY", "block-job-2 py vda COPY READY")
    info = dom.blockJobInfo("vda")
    print("copy", JOB_TYPE[info["type"]], info["cur"] == info["end"], "mirror", "<mirror" in dom.XMLDesc())
    dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    events("block-job py copy.qcow2 COPY COMPLETED", "block-job-2 py vda COPY COMPLETED")
    print("copy", dom.blockJobInfo("vda"), "mirror", "<mirror" in dom.XMLDesc())
    print("source is the copy", path("copy.qcow2") in dom.XMLDesc())

    copy = copy.replace("copy.qcow2", "unused.qcow2")
    dom.blockCopy("vda", copy, {}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    events("block-job-2 py vda COPY READY")
    dom.blockJobAbort("vda", 0)
    events("block-job-2 py vda COPY CANCELED")

    target = f"""<domainbackup><disks><disk name='vda' type='file'><driver type='qcow2'/>
      <target file='{path("backup.qcow2")}'/></disk></disks></domainbackup>"""
    dom.backupBegin(target, "<domaincheckpoint><name>c1</name></domaincheckpoint>")
    events("disk_total 16777216", "block-job-2 py vda BACKUP COMPLETED")
    keep = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    stats = dom.jobStats(keep)
    print(
        "job", stats["type"] == libvirt.VIR_DOMAIN_JOB_COMPLETED,
        stats["operation"] == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP,
        stats["disk_total"], stats["disk_remaining"],
    )
    print("job now", dom.jobStats()["type"], dom.jobInfo()[0])
    refused("backup XML without a backup", dom.backupGetXMLDesc)

    second = dom.checkpointCreateXML("<domaincheckpoint><name>c2</name></domaincheckpoint>")
    print("checkpoints", sorted(c.getName() for c in dom.listAllCheckpoints()))
    print("parent", second.getParent().getName(), "in XML", "<name>c1</name>" in second.getXMLDesc())
    first = dom.checkpointLookupByName("c1")
    print("children", [c.getName() for c in first.listAllChildren()])
    first.delete()
    print("checkpoints", [c.getName() for c in dom.listAllCheckpoints()])
    second.delete()

    dom.suspend()
    dom.resume()
    events("lifecycle py 3 0", "lifecycle py 4 0")
    dom.destroy()
    dom.undefine()
    events("lifecycle py 5 1", "lifecycle py 1 0")
    refused("look-up", lambda: conn.lookupByName("py"))

    transient = conn.createXML(document("passing"))
    events("lifecycle passing 2 0")
    print("persistent", transient.isPersistent(), [d.name() for d in conn.listAllDomains()])
    transient.destroy()
    events("lifecycle passing 5 1")
    print("domains", len(conn.listAllDomains()))
    print("closed", looking.close(), conn.close())


main()
