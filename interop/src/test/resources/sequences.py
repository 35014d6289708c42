# SPDX-License-Identifier: Apache-2.0
"""Plays runs of calls that were made of libvirtd, and tells where this daemon answers otherwise.

sequences.py URI TYPE GUESTS FOLDER RUNS SEED...
sequences.py URI TYPE GUESTS FOLDER RUNS pick COUNT RANDOM

GUESTS is the folder of the guests' sockets, RUNS the recorded answers. `pick` takes COUNT runs at random, none that waits for half a
minute unless all are taken. Prints a line for each run, and below it each difference. A run is told by its seed: how many images the disk vda has, and what follows one
another; see the steps below. Texts of errors are not compared, nor numbers that an implementation may choose.
"""
import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree

import libvirt

PATIENCE = 30  # seconds, for what must happen
REFUSED = 0.3  # seconds, for what must not
SIZE = "8M"
JOBS = ("blockRebase", "blockCopy", "blockPull", "blockCommit")
LIFE = ("DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED", "SHUTDOWN", "PMSUSPENDED", "CRASHED")
JOB_TYPES = ("UNKNOWN", "PULL", "COPY", "COMMIT", "ACTIVE_COMMIT", "BACKUP")
JOB_ENDS = ("COMPLETED", "FAILED", "CANCELED", "READY")
# Of statistics: they are the same for everyone.
STATISTICS = ("operation", "disk_total", "success", "type")


class Heard:
    """Events of all domains, by name, as they come."""

    def __init__(self, connection):
        self.news = threading.Condition()
        self.of = {}
        register = connection.domainEventRegisterAny
        register(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.life, None)
        register(None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB, self.job, "BLOCK_JOB")
        register(None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, self.job, "BLOCK_JOB_2")
        register(None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self.completed, None)

    def add(self, domain, event):
        with self.news:
            self.of.setdefault(domain.name(), []).append(event)
            self.news.notify_all()

    def life(self, _connection, domain, event, detail, _opaque):
        if (event, detail) != (6, 2):  # a process that is told to end may be quicker than its destruction
            self.add(domain, ["LIFECYCLE", LIFE[event], detail])

    def job(self, _connection, domain, name, kind, status, which):
        self.add(domain, [which, name, JOB_TYPES[kind], JOB_ENDS[status]])

    def completed(self, _connection, domain, statistics, _opaque):
        self.add(domain, ["JOB_COMPLETED", known(statistics)])

    def wait(self, domain, condition, seconds):
        """Until `condition` of the events makes sense; its last answer."""
        with self.news:
            self.news.wait_for(lambda: condition(self.of.get(domain, [])), seconds)
            return condition(self.of.get(domain, []))


def known(statistics):
    return {key: statistics[key] for key in STATISTICS if key in statistics}


def tool(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False)


def must(*words):
    done = tool(*words)
    if done.returncode:
        raise RuntimeError("%s: %s" % (words, done.stderr))


def compact(element):
    """An element on one line, without the blanks between its parts."""
    attributes = "".join(" %s='%s'" % item for item in element.attrib.items())
    inside = (element.text or "").strip() + "".join(compact(child) for child in element)
    return "<%s%s>%s</%s>" % (element.tag, attributes, inside, element.tag) if inside else "<%s%s/>" % (element.tag, attributes)


class Run:
    def __init__(self, connection, heard, options, recorded):
        self.connection, self.heard = connection, heard
        self.kind, self.guests = options["type"], options["guests"]
        self.name = "seq-%d" % recorded["seed"]
        self.folder = os.path.join(options["folder"], self.name)
        self.recorded = recorded
        self.differences = []
        self.expected_events = []
        self.begun = {}
        self.refused = set()

    # what is there before the first step

    def path(self, name):
        return os.path.join(self.folder, name)

    def image(self, name, *options):
        must("qemu-img", "create", "-q", "-f", "qcow2", *options, self.path(name), SIZE)

    def fill(self, name, *writes):
        commands = [word for write in writes for word in ("-c", "write -P %s" % write)]
        must("qemu-io", "-f", "qcow2", *commands, self.path(name))

    def make(self):
        os.makedirs(self.folder)
        top = "base.qcow2"
        self.image(top)
        self.fill(top, "0x11 0 1M", "0x12 4M 512k")
        for n in range(1, self.recorded["images"]):
            beneath, top = top, "snap%d.qcow2" % n
            self.image(top, "-b", beneath if self.recorded["relative"] else self.path(beneath), "-F", "qcow2")
            self.fill(top, "0x%d1 %dk 128k" % (n + 1, 512 * n), "0x%d2 %dM 256k" % (n + 1, 4 + n))
        self.image("b.img")
        disks = "".join(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='%s' bus='virtio'/></disk>"
            % (self.path(file), target) for target, file in (("vda", top), ("vdb", "b.img")))
        xml = ("<domain type='%s'><name>%s</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os>"
               "<type arch='x86_64' machine='q35'>hvm</type></os><devices>%s</devices></domain>") % (self.kind, self.name, disks)
        if self.recorded["persistent"]:
            self.domain = self.connection.defineXML(xml)
            self.domain.create()
        else:
            self.domain = self.connection.createXML(xml, 0)

    def play(self):
        self.make()
        for at, step in enumerate(self.recorded["steps"]):
            found, wanted = getattr(self, "step_" + step[0])(*step[1:])
            found = self.plain(found)
            if found != wanted:
                self.differences.append("step %d %s\n  wanted %s\n  found  %s" % (at, step[:-1], json.dumps(wanted), json.dumps(found)))
        heard = self.plain(self.heard.of.get(self.name, []))
        if ordered(heard) != ordered(self.expected_events):
            self.differences.append("events\n  wanted %s\n  found  %s" % (json.dumps(self.expected_events), json.dumps(heard)))

    def plain(self, value):
        if isinstance(value, str):
            return value.replace(self.folder, "$DIR").replace(self.name, "$DOM")
        if isinstance(value, dict):
            return {key: self.plain(one) for key, one in value.items()}
        return [self.plain(one) for one in value] if isinstance(value, (list, tuple)) else value

    # steps: each gives what was found and what is wanted

    def step_call(self, words, wanted):
        what, name, verb, *arguments = words
        arguments = [one.replace("$DIR", self.folder) if isinstance(one, str) else one for one in arguments]
        job = arguments[0] if verb in JOBS else "*" if verb == "backupBegin" else None
        before = len(self.heard.of.get(self.name, []))
        try:
            one = self.domain
            if what == "checkpoint":
                one = self.domain.checkpointLookupByName(name, 0)
            elif what == "snapshot":
                one = self.domain.snapshotLookupByName(name, 0)
            value = getattr(one, verb)(*arguments)
        except libvirt.libvirtError as error:
            self.refused.add(job)
            return {"error": [error.get_error_code(), error.get_error_domain()]}, wanted
        if job:
            self.begun[job] = before
            self.refused.discard(job)
        return {"value": self.answer(verb, value)}, wanted

    @staticmethod
    def answer(verb, value):
        if verb == "jobStats":
            return known(value)
        if verb == "backupGetXMLDesc":
            return compact(ElementTree.fromstring(value))
        if isinstance(value, list):
            return [one.getName() if hasattr(one, "getName") else one for one in value]
        return "<%s %s>" % (type(value).__name__, value.getName()) if hasattr(value, "getName") else value

    def step_write(self, disk, byte, offset):
        uri = "nbd+unix:///%s?socket=%s" % (disk, os.path.join(self.guests, self.name + ".sock"))
        done = tool("qemu-io", "-f", "raw", "-c", "write -P 0x%x %d 64k" % (byte, offset), uri)
        return done.stdout + done.stderr if done.returncode else "", ""

    def step_wait(self, what, wanted):
        kind, _, disk = what.partition(" ")
        job = disk or "*"
        since = self.begun.get(job, 0)

        def came(events):
            mine = [one for one in events[since:] if one[:2] == ["BLOCK_JOB_2", disk]]
            if kind == "JOB_COMPLETED":
                return any(one[0] == kind for one in events[since:])
            if kind == "end-of-job":
                return any(one[3] != "READY" for one in mine)
            return mine[0][3] if mine else None

        answer = self.heard.wait(self.name, came, REFUSED if wanted in (False, "TIMEOUT") else PATIENCE)
        if kind == "READY":
            return answer == "READY", wanted
        return (answer or "TIMEOUT") if kind == "any" else answer, wanted

    def step_events(self, wanted):
        """What libvirt had sent by then has come, in whatever order: the order of all is looked at in the end."""
        self.expected_events += wanted
        count = len(self.expected_events)
        self.heard.wait(self.name, lambda events: len(events) >= count, PATIENCE)
        return None, None

    def step_disk(self, target, inactive, wanted):
        document = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0)
        for disk in ElementTree.fromstring(document).findall(".//disk"):
            if disk.find("target").get("dev") == target:
                for made_up in disk.findall("address") + disk.findall("alias"):
                    disk.remove(made_up)
                return compact(disk), wanted
        return "no such disk", wanted

    def step_end(self):
        try:
            self.domain.destroy()
        except libvirt.libvirtError:
            pass  # it did not start again
        return None, None

    def step_files(self, wanted):
        return sorted(name for name in os.listdir(self.folder) if not name.endswith(".sock")), wanted

    def step_image(self, name, wanted):
        return self.facts(self.path(name)), wanted

    def facts(self, path):
        if not os.path.exists(path):
            return "missing"
        asked = tool("qemu-img", "info", "-U", "--output=json", path)
        if asked.returncode:
            return "error"
        told = json.loads(asked.stdout)
        facts = {key: told[key] for key in ("format", "virtual-size", "backing-filename", "backing-filename-format", "cluster-size") if key in told}
        own = (told.get("format-specific") or {}).get("data") or {}
        facts.update({key: own[key] for key in ("compat", "lazy-refcounts", "bitmaps", "data-file") if key in own})
        if "bitmaps" in facts:
            facts["bitmaps"].sort(key=lambda bitmap: bitmap["name"])
        if facts["format"] == "qcow2":
            check = json.loads(tool("qemu-img", "check", "-U", "--output=json", path).stdout or "{}")
            facts["check"] = {"errors": check.get("check-errors", -1), "corruptions": check.get("corruptions", 0), "leaks": check.get("leaks", 0)}
        facts["sha256"] = self.digest(path, facts["format"])
        return facts

    def digest(self, path, form):
        """Of what a guest would read."""
        raw = self.path(".raw")
        if tool("qemu-img", "convert", "-U", "-f", form, "-O", "raw", path, raw).returncode:
            return "error"
        with open(raw, "rb") as content:
            sum_ = hashlib.sha256(content.read()).hexdigest()[:16]
        os.unlink(raw)
        return sum_

    def close(self):
        if not hasattr(self, "domain"):
            return
        self.step_end()
        if self.recorded["persistent"]:
            flags = libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            self.domain.undefineFlags(flags)
        shutil.rmtree(self.folder)


def ordered(events):
    """The disks of a backup end in any order, and so do events about it that stand side by side."""
    result, group = [], []
    for event in events:
        if event[0] == "JOB_COMPLETED" or (event[0].startswith("BLOCK_JOB") and event[2] == "BACKUP"):
            group.append(json.dumps(event, sort_keys=True))
        else:
            result += sorted(group) + [json.dumps(event, sort_keys=True)]
            group = []
    return result + sorted(group)


def chosen(words, recorded):
    if words[0] != "pick":
        return [int(word) for word in words]
    count = int(words[1])
    if count >= len(recorded):
        return list(recorded)
    return random.Random(int(words[2])).sample([seed for seed, run in recorded.items() if not run["slow"]], count)


def main():
    uri, kind, guests, folder, runs, *seeds = sys.argv[1:]
    with gzip.open(runs) as file:
        recorded = {run["seed"]: run for run in json.load(file)}
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda *_: None, None)

    def loop():
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, daemon=True).start()
    connection = libvirt.open(uri)
    heard = Heard(connection)
    options = {"type": kind, "guests": guests, "folder": folder}
    for seed in chosen(seeds, recorded):
        run = Run(connection, heard, options, recorded[seed])
        try:
            run.play()
        finally:
            run.close()
        print("seed %s: %s" % (seed, "as recorded" if not run.differences else "\n".join(["differs"] + run.differences)), flush=True)


main()
sys.stdout.flush()
os._exit(0)
