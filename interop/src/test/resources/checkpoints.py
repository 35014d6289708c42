# SPDX-License-Identifier: Apache-2.0
"""checkpoints.py URI READ_ONLY_URI DOMAIN_TYPE DIR: checkpoints of one domain through python3-libvirt; a line
for each call and its answer. DIR/vda.qcow2 and DIR/vdb.qcow2 are the disks.
Runs against libvirtd too, with type qemu."""
import os
import re
import sys

import libvirt

URI, READ_ONLY_URI, TYPE, DIR = sys.argv[1:5]
libvirt.registerErrorHandler(lambda *_: None, None)
UUID = "5f8c1c3e-9d5e-4a30-8f9e-0a4a0c6d7e01"
DISK = """<disk type='file'><driver name='qemu' type='qcow2'/><source file='{0}/{1}.qcow2'/>
<target dev='{1}' bus='virtio'/></disk>"""
DOMAIN = f"""<domain type='{TYPE}'><name>marked</name><uuid>{UUID}</uuid><memory unit='MiB'>32</memory>
<os><type>hvm</type></os><devices>{DISK.format(DIR, "vda")}{DISK.format(DIR, "vdb")}
<graphics type='vnc' socket='{DIR}/vnc' passwd='secret'/></devices></domain>"""
REDEFINE, QUIESCE, VALIDATE = 1, 2, 4
SECURE, NO_DOMAIN, SIZE = 1, 2, 4
ROOTS, TOPOLOGICAL, LEAVES, NO_LEAVES = 1, 2, 4, 8
CHILDREN, METADATA_ONLY, CHILDREN_ONLY = 1, 2, 4


def shown(answer):
    if isinstance(answer, list):
        return " ".join(sorted(x.getName() for x in answer)) or "-"
    if isinstance(answer, str):
        if "<domain " in answer:
            answer = answer[: answer.index("<domain ")] + "<domain.../>" + "</domaincheckpoint>"
        answer = re.sub(r"<creationTime>\d+", "<creationTime>TIME", answer)
        return re.sub(r"\s*\n\s*", "", answer)
    return answer.getName() if hasattr(answer, "getName") else str(answer)


def ask(what, call):
    try:
        print(f"{what}: {shown(call())}")
    except libvirt.libvirtError as e:
        text = e.get_error_message()
        if e.get_error_code() == libvirt.VIR_ERR_XML_INVALID_SCHEMA:
            text = text.split(":")[0]
        text = text.replace(DIR, "DIR").split("\n")[0]
        print(f"{what}: error {e.get_error_code()} from {e.get_error_domain()}: {text}")


def checkpoint(name, rest="", disks=None):
    listed = f"<disks>{disks}</disks>" if disks is not None else ""
    return f"<domaincheckpoint><name>{name}</name>{rest}{listed}</domaincheckpoint>"


connection = libvirt.open(URI)
looking = libvirt.open(READ_ONLY_URI) if READ_ONLY_URI != URI else libvirt.openReadOnly(URI)
domain = connection.defineXML(DOMAIN)
domain.create()
guarded = looking.lookupByName("marked")


def named(name):
    return domain.checkpointLookupByName(name)


def tree(when):
    parents = []
    for found in domain.listAllCheckpoints(TOPOLOGICAL):
        try:
            parents.append(f"{found.getName()}<{found.getParent().getName()}")
        except libvirt.libvirtError:
            parents.append(found.getName())
    print(f"tree {when}: {' '.join(sorted(parents))}")


ask("create a", lambda: domain.checkpointCreateXML(checkpoint("a", "<description>one</description>"), 0))
for name, disks in (
    ("b", "<disk name='vda'/>"),
    ("c", "<disk name='vdb' checkpoint='bitmap' bitmap='c'/><disk name='vda' checkpoint='no'/>"),
    ("d", f"<disk name='{DIR}/vda.qcow2'/>"),
    ("e", "<disk name='vda' checkpoint='no'/>"),
    ("f", "<disk name='vdz'/>"),
    ("f", "<disk name='vda'/><disk name='vda'/>"),
    ("f", "<disk name='vda' bitmap='x'/>"),
    ("f", ""),
    ("a", None),
    ("f/g", None),
):
    ask(f"create {name} {disks}".replace(DIR, "DIR"), lambda: domain.checkpointCreateXML(checkpoint(name, disks=disks), 0))
for flags in (QUIESCE, VALIDATE, REDEFINE | QUIESCE, 16):
    ask(f"create flags {flags}", lambda: domain.checkpointCreateXML(checkpoint("g"), flags))
tree("made")
for flags in range(16):
    ask(f"list {flags}", lambda: domain.listAllCheckpoints(flags))
    ask(f"children of b {flags}", lambda: named("b").listAllChildren(flags))
ask("list 16", lambda: domain.listAllCheckpoints(16))
for flags in range(8):
    ask(f"xml of b {flags}", lambda: named("b").getXMLDesc(flags))
ask("xml 8", lambda: named("b").getXMLDesc(8))
ask("parent of a", lambda: named("a").getParent())
ask("none", lambda: named("none"))
secrets = ["passwd=" in named("b").getXMLDesc(flags) for flags in (0, SECURE)]
print(f"secrets {secrets}")
ask("read-only xml", lambda: guarded.checkpointLookupByName("b").getXMLDesc(NO_DOMAIN))
ask("read-only secure", lambda: guarded.checkpointLookupByName("b").getXMLDesc(SECURE))
ask("read-only list", lambda: guarded.listAllCheckpoints(0))
ask("read-only delete", lambda: guarded.checkpointLookupByName("b").delete(0))
ask("read-only create", lambda: guarded.checkpointCreateXML(checkpoint("h"), 0))

kept = {name: named(name).getXMLDesc(SECURE) for name in "abcde"}
for flags in (CHILDREN | CHILDREN_ONLY, 8):
    ask(f"delete b {flags}", lambda: named("b").delete(flags))
ask("delete c", lambda: named("c").delete(0))
tree("without c")
ask("redefine c, checked", lambda: domain.checkpointCreateXML(kept["c"], REDEFINE | VALIDATE))
ask("redefine c", lambda: domain.checkpointCreateXML(kept["c"], REDEFINE))
tree("with c again")
ask("size of c", lambda: named("c").getXMLDesc(SIZE | NO_DOMAIN))
ask("delete c, no bitmap", lambda: named("c").delete(0))
ask("delete c, metadata", lambda: named("c").delete(METADATA_ONLY))
ask("delete beneath a, metadata", lambda: named("a").delete(CHILDREN_ONLY | METADATA_ONLY))
tree("a alone")
for name in "bde":
    ask(f"redefine {name}, checked", lambda: domain.checkpointCreateXML(kept[name], REDEFINE | VALIDATE))
for name, document in (
    ("x", checkpoint("x")),
    ("x", checkpoint("x", "<creationTime>5</creationTime><parent><name>none</name></parent>")),
    ("a", checkpoint("a", "<creationTime>5</creationTime><parent><name>a</name></parent>")),
    ("a", checkpoint("a", "<creationTime>5</creationTime><parent><name>b</name></parent>")),
    ("x", kept["b"].replace(UUID, UUID.replace("5f8c", "5f8d")).replace("<name>b<", "<name>x<", 1)),
    ("x", checkpoint("x", "<creationTime>5</creationTime>", "<disk name='vdz'/>")),
    ("none", "<domaincheckpoint><creationTime>5</creationTime></domaincheckpoint>"),
):
    ask(f"redefine {name}", lambda: domain.checkpointCreateXML(document, REDEFINE))
tree("redefined")
ask("delete x", lambda: named("x").delete(0))
ask("create z", lambda: domain.checkpointCreateXML(checkpoint("z"), 0))
tree("with z")
domain.destroy()
ask("off: xml", lambda: named("z").getXMLDesc(NO_DOMAIN))
ask("off: size", lambda: named("z").getXMLDesc(SIZE))
ask("off: create", lambda: domain.checkpointCreateXML(checkpoint("y"), 0))
ask("off: delete", lambda: named("z").delete(0))
ask("off: redefine, checked", lambda: domain.checkpointCreateXML(kept["a"], REDEFINE | VALIDATE))
ask("off: redefine", lambda: domain.checkpointCreateXML(kept["a"], REDEFINE))
ask("off: snapshot", lambda: domain.snapshotCreateXML("<domainsnapshot/>", 16))
ask("undefine", lambda: domain.undefineFlags(0))
domain.create()
ask("started: size", lambda: named("z").getXMLDesc(SIZE | NO_DOMAIN))
ask("delete a and all beneath", lambda: named("a").delete(CHILDREN))
tree("empty")
domain.destroy()
ask("undefine", lambda: domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA))
