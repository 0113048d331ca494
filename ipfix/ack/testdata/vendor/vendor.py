#!/usr/bin/env python3
"""Acknowledged export as another vendor builds it: an Exporting Process and a
Collecting Process in Python, written from docs/acknowledged-export.md and RFC
7011 alone, before its author had read any code of Tollbridge. What it had to
guess then the document says now. The tests run it against Tollbridge in both
directions (see docs/interop.md).

    vendor.py export --to 127.0.0.1:4740 --spool DIR --records 1000
    vendor.py collect --listen 127.0.0.1:4740 --journal FILE
    vendor.py list --journal FILE

It takes every freedom that the document leaves: Template IDs, the order of
fields, fields of others in between, numbers in reduced-size encoding.
"""
import argparse
import csv
import errno
import hashlib
import ipaddress
import itertools
import json
import os
import select
import signal
import socket
import ssl
import struct
import sys
import time
from collections import deque, namedtuple

VERSION = 1
WANTS_ACKNOWLEDGEMENT, WANTS_PULLS = 0x01, 0x02
DISK_FULL, STORAGE_FAILS = 2, 4
REASONS = {1: "overload", 2: "disk full", 3: "waits for another collector", 4: "storage fails"}
DONE, REFUSED = 0, 1
RESULTS = {0: "done", 1: "refused", 2: "failed"}
WINDOW = 4096           # Messages sent and not acknowledged
HELD_UP_AFTER = 1.0     # seconds without anything durable
HELD_UP_AGAIN = 10.0
FAIL_OVER_AFTER = 30.0
BUFFERED = 1 << 18      # octets waiting for the peer to read

# The enterprise-specific Information Elements: number, octets as sent here.
ELEMENTS = {
    "exporterInstance": (1, 16), "messagePosition": (2, 6), "acknowledgementVersion": (3, 1),
    "acknowledgementWants": (4, 1), "givenUpRecords": (5, 4), "durablePosition": (6, 7),
    "holdReason": (7, 1), "pullRequest": (8, 8), "pullAddress": (9, 16), "pullPrefixLength": (10, 1),
    "pullResult": (11, 1), "pullTime": (12, 8), "lastMessagePosition": (13, 6),
}
NAMES = {number: name for name, (number, _) in ELEMENTS.items()}
SIXTEEN = ("exporterInstance", "pullAddress")
OWN_KINDS = {
    "identity": {"exporterInstance", "messagePosition", "acknowledgementVersion", "acknowledgementWants"},
    "given up": {"messagePosition", "lastMessagePosition", "givenUpRecords"},
    "pull answer": {"pullRequest", "pullResult", "pullTime"},
    "acknowledgement": {"exporterInstance", "durablePosition", "acknowledgementVersion"},
    "held up": {"exporterInstance", "holdReason"},
    "pull": {"pullRequest", "pullAddress", "pullPrefixLength"},
}
# IANA elements of a flow: number, octets.
FLOW = {
    "flowStartMilliseconds": (152, 8), "flowEndMilliseconds": (153, 8), "sourceIPv4Address": (8, 4),
    "destinationIPv4Address": (12, 4), "sourceIPv6Address": (27, 16), "destinationIPv6Address": (28, 16),
    "sourceTransportPort": (7, 2), "destinationTransportPort": (11, 2), "protocolIdentifier": (4, 1),
    "octetDeltaCount": (1, 8), "packetDeltaCount": (2, 8),
}
FLOW_NAMES = {number: name for name, (number, _) in FLOW.items()}
FLOW_FIELDS = ["flowStartMilliseconds", "flowEndMilliseconds", "source", "destination", "sourceTransportPort",
               "destinationTransportPort", "protocolIdentifier", "octetDeltaCount", "packetDeltaCount"]
COLLECTION_TIME = (258, 8)  # collectionTimeMilliseconds: a stranger among our fields


def say(event, **details):
    """One line of JSON on standard output for each thing that happened."""
    print(json.dumps({"event": event, **details}), flush=True)


# ---------------------------------------------------------------- IPFIX, RFC 7011

Template = namedtuple("Template", "options fields")         # fields: [(enterprise, number, octets)]
Record = namedtuple("Record", "first template values")      # values: [((enterprise, number), octets)]


def message(domain, sequence, sets, at=None):
    """Section 3.1: a Message Header before its Sets."""
    body = b"".join(sets)
    return struct.pack("!HHIII", 10, 16 + len(body), int(at or time.time()), sequence & 0xFFFFFFFF, domain) + body


def data_set(number, body):
    return struct.pack("!HH", number, 4 + len(body)) + body


def field(enterprise, number, octets):
    if enterprise:
        return struct.pack("!HHI", 0x8000 | number, octets, enterprise)
    return struct.pack("!HH", number, octets)


def template_set(number, fields):
    return data_set(2, struct.pack("!HH", number, len(fields)) + b"".join(field(*f) for f in fields))


def options_template_set(number, scope, fields):
    everything = list(scope) + list(fields)
    head = struct.pack("!HHH", number, len(everything), len(scope))
    return data_set(3, head + b"".join(field(*f) for f in everything))


def domain_of(octets):
    return struct.unpack_from("!I", octets, 12)[0]


def content_of(octets):
    """What is the same in each sending: all but Export Time and Sequence Number."""
    return octets[12:]


class Decoder:
    """The Templates of one Transport Session; ValueError for what is no IPFIX."""

    def __init__(self):
        self.templates = {}

    def records(self, octets):
        if len(octets) < 16:
            raise ValueError("Message shorter than its header")
        out, at, sets = [], 16, 0
        domain = domain_of(octets)
        while at < len(octets):
            if len(octets) - at < 4:
                raise ValueError("Set header cut off")
            number, length = struct.unpack_from("!HH", octets, at)
            if length < 4 or at + length > len(octets):
                raise ValueError(f"Set of {length} octets leaves its Message")
            body = octets[at + 4:at + length]
            if number in (2, 3):
                self._templates(domain, number == 3, body)
            elif number >= 256:
                template = self.templates.get((domain, number))
                if template is not None:
                    out += self._data(template, body, sets == 0)
            at, sets = at + length, sets + 1
        return out

    def _templates(self, domain, options, body):
        at = 0
        while len(body) - at >= 4:
            number, count = struct.unpack_from("!HH", body, at)
            at += 4
            if count == 0:  # a withdrawal: of one, or of all (Section 8.1)
                if number in (2, 3):
                    self.templates = {k: t for k, t in self.templates.items()
                                      if k[0] != domain or t.options != (number == 3)}
                self.templates.pop((domain, number), None)
                continue
            if number < 256:
                return  # padding
            if options:
                at += 2  # the scope's field count: a record is known by its elements
            fields = []
            for _ in range(count):
                if len(body) - at < 4:
                    raise ValueError(f"Template {number} cut off")
                ie, octets = struct.unpack_from("!HH", body, at)
                at, enterprise = at + 4, 0
                if ie & 0x8000:
                    if len(body) - at < 4:
                        raise ValueError(f"Template {number} cut off")
                    enterprise, = struct.unpack_from("!I", body, at)
                    at += 4
                fields.append((enterprise, ie & 0x7FFF, octets))
            self.templates[domain, number] = Template(options, fields)

    @staticmethod
    def _data(template, body, first):
        shortest = sum(1 if octets == 0xFFFF else octets for _, _, octets in template.fields)
        out, at = [], 0
        while shortest and len(body) - at >= shortest:  # what is left is padding
            values = []
            for enterprise, ie, octets in template.fields:
                if octets == 0xFFFF:
                    octets, at = body[at], at + 1
                    if octets == 255:
                        octets, at = struct.unpack_from("!H", body, at)[0], at + 2
                if at + octets > len(body):
                    raise ValueError("Data Record leaves its Set")
                values.append(((enterprise, ie), body[at:at + octets]))
                at += octets
            out.append(Record(first and not out, template, values))
        return out


# ---------------------------------------------------------------- the extension's records

class Extension:
    """The records of acknowledged export under one Private Enterprise Number."""

    def __init__(self, enterprise):
        self.enterprise = enterprise

    def spec(self, name):
        return (self.enterprise, *ELEMENTS[name])

    def template(self, number, scope, fields):
        """An Options Template; a field that is no name of ours is taken as it is."""
        return options_template_set(number, [self.spec(n) for n in scope],
                                    [self.spec(n) if isinstance(n, str) else (0, *n) for n in fields])

    @staticmethod
    def encode(*pairs):
        out = b""
        for name, value in pairs:
            out += value if isinstance(value, bytes) else value.to_bytes(ELEMENTS[name][1], "big")
        return out

    def decode(self, record):
        """(kind, values) of a record of this protocol, else (None, None)."""
        template = record.template
        if not template.options or any(octets == 0xFFFF for _, _, octets in template.fields):
            return None, None
        values = {}
        for (enterprise, number), octets in record.values:
            name = NAMES.get(number) if enterprise == self.enterprise else None
            if name in SIXTEEN:
                if len(octets) == 16:
                    values[name] = octets
            elif name and 1 <= len(octets) <= 8:
                values[name] = int.from_bytes(octets, "big")
        for kind, names in OWN_KINDS.items():
            if names <= values.keys():
                return kind, values
        return None, None


# ---------------------------------------------------------------- files, associations

class Log:
    """A file of JSON lines. What add took is durable when sync has returned."""

    def __init__(self, path):
        self.path = path
        self.fd, self.waiting = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), b""
        self.lines, self.size = read_lines(path)
        os.ftruncate(self.fd, self.size)  # a line that a crash tore
        os.fsync(self.fd)
        sync_directory(path)

    def add(self, **line):
        self.waiting += json.dumps(line).encode() + b"\n"

    def sync(self):
        """Writes and fsyncs; after an OSError nothing of it is there, and all may be tried again."""
        if not self.waiting:
            return
        try:
            rest = memoryview(self.waiting)
            while rest:
                rest = rest[os.write(self.fd, rest):]
            os.fsync(self.fd)
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size += len(self.waiting)
        self.waiting = b""

    def rewrite(self, lines):
        """Puts these lines in the place of all."""
        new = self.path + ".new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        os.fsync(fd)
        os.rename(new, self.path)
        sync_directory(self.path)
        os.close(self.fd)
        self.fd, self.size, self.waiting = fd, len(data), b""


def read_lines(path):
    """The whole lines of a Log, and how many octets they have."""
    lines, size = [], 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
            size += len(line)
    return lines, size


def sync_directory(path):
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def tls_context(args, server):
    if not args.cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(args.cert, args.key)
    context.load_verify_locations(args.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Association:
    """A TCP or TLS connection that never blocks: octets out, Messages in."""

    def __init__(self, sock, peer):
        sock.setblocking(False)
        self.sock, self.peer = sock, peer
        self.out, self.inbox, self.ended = bytearray(), bytearray(), False

    def fileno(self):
        return self.sock.fileno()

    def write(self):
        try:
            while self.out:
                del self.out[:self.sock.send(memoryview(self.out)[:1 << 16].tobytes())]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass

    def read(self):
        """The Messages that are here; sets ended behind the last one."""
        try:
            while not self.ended and len(self.inbox) < 1 << 20:
                octets = self.sock.recv(1 << 16)
                self.ended = not octets
                self.inbox += octets
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        out = []
        while len(self.inbox) >= 4:
            version, length = struct.unpack_from("!HH", self.inbox)
            if version != 10 or length < 16:
                raise ValueError(f"version {version}, length {length}: not an IPFIX Message")
            if len(self.inbox) < length:
                break
            out.append(bytes(self.inbox[:length]))
            del self.inbox[:length]
        return out

    def finish(self):
        """Closes our end: nothing more will be sent. TLS has no half of it in Python."""
        if not isinstance(self.sock, ssl.SSLSocket):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.unwrap()  # close_notify
        except (OSError, ValueError):
            pass
        self.sock.close()


# ---------------------------------------------------------------- the Exporting Process

class Spool:
    """The exporter's disk: its instance, and each Message until it is acknowledged or given up."""

    def __init__(self, directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.log = Log(os.path.join(directory, "spool"))
        self.instance, self.position, self.consumed, self.pulled = None, 0, 0, set()
        self.kept = {}  # position: what add was told, rising
        for line in self.log.lines:
            self._apply(line)
        if self.instance is None:
            self.instance = os.urandom(16)
            self.log.add(instance=self.instance.hex())
            self.log.sync()
        self.log.lines = []

    def _apply(self, line):
        if "instance" in line:
            self.instance = bytes.fromhex(line["instance"])
        if "message" in line:
            self.kept[line["position"]] = line
        for position in line.get("forget", ()):
            self.kept.pop(position, None)
        self.position = max(self.position, line.get("position", 0))
        self.consumed = max(self.consumed, line.get("consumed", 0))
        self.pulled.update(line.get("pulled", ()))

    def add(self, octets, flows, others, consumed=0, pulled=(), given_up=()):
        """Keeps a Message of flows and other Data Records, under the next position; durable after sync."""
        self._add(dict(message=octets.hex(), position=self.position + 1, flows=flows, others=others,
                       consumed=consumed, pulled=list(pulled), forget=list(given_up)))

    def _add(self, line):
        self.log.add(**line)
        self._apply(line)

    def forget(self, positions):
        """Not synced: a Message that a crash brings back is only sent again."""
        self._add(dict(forget=list(positions)))
        if not self.kept and self.log.size > 1 << 20:
            self.log.rewrite([dict(instance=self.instance.hex(), position=self.position, consumed=self.consumed,
                                   pulled=sorted(self.pulled))])


class Exporter:
    IDENTITY, GIVEN_UP, PULL_ANSWER, FLOW4, FLOW6 = 700, 701, 702, 1000, 1001

    def __init__(self, args):
        self.args, self.extension = args, Extension(args.enterprise)
        self.spool = Spool(args.spool)
        self.input = itertools.islice(flows_of(args), self.spool.consumed, None)
        self.input_ended = False
        self.cache = [parse_active(i, text) for i, text in enumerate(args.active)]
        self.made_at = 0.0
        self.unsent = deque()
        say("spool", instance=self.spool.instance.hex(), position=self.spool.position, kept=len(self.spool.kept))

    # what goes into Messages

    def templates(self, sequence):
        e = self.extension
        fields = lambda family: [(0, *FLOW[flow_element(name, family)]) for name in FLOW_FIELDS]
        return message(self.args.domain, sequence, [
            template_set(self.FLOW4, fields(4)), template_set(self.FLOW6, fields(6)),
            # Scope and fields in another order than the document's, and an element of IANA's among them.
            e.template(self.IDENTITY, ["messagePosition", "exporterInstance"],
                       ["acknowledgementWants", COLLECTION_TIME, "acknowledgementVersion"]),
            e.template(self.GIVEN_UP, ["lastMessagePosition", "messagePosition"], ["givenUpRecords"]),
            e.template(self.PULL_ANSWER, ["pullRequest"], ["pullTime", "pullResult"])])

    def write_message(self, flows, sets=(), others=0, **of_spool):
        """Puts an Identity, flows, and Sets with other records into a Message, and it into the spool."""
        wants = WANTS_ACKNOWLEDGEMENT | (WANTS_PULLS if self.args.active else 0)
        identity = self.extension.encode(
            ("messagePosition", self.spool.position + 1), ("exporterInstance", self.spool.instance),
            ("acknowledgementWants", wants), ("", int(time.time() * 1000).to_bytes(8, "big")),
            ("acknowledgementVersion", VERSION))
        octets = message(self.args.domain, 0, [data_set(self.IDENTITY, identity), *self.flow_sets(flows), *sets])
        pulled = [f["active"] for f in flows if "active" in f]
        self.spool.add(octets, len(flows), 1 + others, pulled=pulled,
                       consumed=self.spool.consumed + len(flows) - len(pulled), **of_spool)
        self.unsent.append(self.spool.position)

    def flow_sets(self, flows):
        sets = []
        for family, number in ((4, self.FLOW4), (6, self.FLOW6)):
            body = b"".join(encode_flow(f) for f in flows if f["source"].version == family)
            if body:
                sets.append(data_set(number, body))
        return sets

    def produce(self):
        """Rule 1: up to 64 Messages of the input onto our disk, as far as there is room."""
        pause = self.args.pace / 1000
        for _ in range(64):
            if self.input_ended or time.monotonic() - self.made_at < pause:
                break
            if len(self.spool.kept) >= self.args.keep:
                if self.args.when_full == "block":
                    break
                self.give_up()
            flows = list(itertools.islice(self.input, self.args.per_message))
            if not flows and not self.args.linger:  # the cache's flows end with the input
                flows = [f for f in self.cache if f["active"] not in self.spool.pulled]
                self.input_ended = True
            if not flows:
                break
            self.write_message(flows)
            self.made_at = time.monotonic()
        self.spool.log.sync()

    def give_up(self):
        """Rule 6: the oldest Messages go, in steps of a quarter; what tells of others stays."""
        oldest = [p for p, m in self.spool.kept.items() if not m["others"] > 1][:max(1, self.args.keep // 4)]
        if not oldest:
            return
        body = b"".join(self.extension.encode(("lastMessagePosition", p), ("messagePosition", p),
                                              ("givenUpRecords", self.spool.kept[p]["flows"])) for p in oldest)
        self.write_message([], [data_set(self.GIVEN_UP, body)], len(oldest), given_up=oldest)
        say("given up", positions=oldest)

    # what comes and goes on an association

    def run(self):
        signal.signal(signal.SIGTERM, self.end)
        collectors = itertools.cycle(self.args.to.split(","))
        for collector in collectors:
            association = None
            try:
                association = self.connect(collector)
                if self.associate(association):
                    return
            except (OSError, ValueError) as error:
                say("disconnected", collector=collector, why=str(error))
            finally:
                if association:
                    association.close()
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                self.produce()
                time.sleep(0.02)

    def end(self, *_):
        """Lingers no more: what the cache holds goes too."""
        self.args.linger = False

    def connect(self, collector):
        host, port = collector.rsplit(":", 1)
        sock = socket.create_connection((host, int(port)), timeout=10)
        context = tls_context(self.args, server=False)
        if context:
            sock = context.wrap_socket(sock, server_hostname=host)
        return Association(sock, collector)

    def associate(self, a):
        """Sends on one association until it ends, or all is acknowledged: then it returns True."""
        self.decoder, self.sent, self.durable_at = Decoder(), 0, time.monotonic()
        sequence, in_flight = 0, deque()
        a.out += self.templates(sequence)
        self.unsent = deque(self.spool.kept)
        say("connected", collector=a.peer, resends=len(self.unsent))
        while True:
            self.produce()
            while in_flight and in_flight[0] not in self.spool.kept:
                in_flight.popleft()
            while self.unsent and len(in_flight) < WINDOW and len(a.out) < BUFFERED:
                position = self.unsent.popleft()
                kept = self.spool.kept.get(position)
                if kept is None:
                    continue  # given up meanwhile
                octets = bytearray.fromhex(kept["message"])
                struct.pack_into("!II", octets, 4, int(time.time()), sequence & 0xFFFFFFFF)
                a.out += octets
                sequence += kept["flows"] + kept["others"]  # options records count like all
                in_flight.append(position)
                self.sent = position
            if self.input_ended and not self.spool.kept:
                a.finish()
                say("finished", position=self.spool.position, consumed=self.spool.consumed)
                return True
            select.select([a], [a] if a.out else [], [], 0.02)
            a.write()
            for octets in a.read():
                self.answer(octets)
            if a.ended:
                raise ConnectionError("the collector closed")
            if not self.spool.kept:
                self.durable_at = time.monotonic()
            elif "," in self.args.to and time.monotonic() - self.durable_at > FAIL_OVER_AFTER:
                raise ConnectionError("nothing was acknowledged for long")

    def answer(self, octets):
        for record in self.decoder.records(octets):
            kind, values = self.extension.decode(record)
            mine = values and values.get("exporterInstance") == self.spool.instance
            if kind == "acknowledgement" and mine:
                position = min(values["durablePosition"], self.sent)
                done = [p for p in itertools.takewhile(lambda p: p <= position, self.spool.kept)]
                if done:
                    self.spool.forget(done)
                    self.durable_at = time.monotonic()
                    say("acknowledged", position=position, kept=len(self.spool.kept))
            elif kind == "held up" and mine:
                say("held up", reason=REASONS.get(values["holdReason"], values["holdReason"]))
            elif kind == "pull":
                self.pull(values)

    def pull(self, asked):
        """Exports what the cache holds of a prefix, and the answer behind it."""
        request, length = asked["pullRequest"], asked["pullPrefixLength"]
        if length > 128 or not self.args.active:
            flows, result = [], REFUSED
        else:
            prefix = ipaddress.ip_network((asked["pullAddress"], length), strict=False)
            flows = [f for f in self.cache if f["active"] not in self.spool.pulled
                     and (mapped(f["source"]) in prefix or mapped(f["destination"]) in prefix)]
            result = DONE
        answer = self.extension.encode(("pullRequest", request), ("pullTime", int(time.time() * 1000)),
                                       ("pullResult", result))
        self.write_message(flows, [data_set(self.PULL_ANSWER, answer)], 1)
        self.spool.log.sync()
        say("pulled", request=request, flows=len(flows), result=RESULTS[result])


def mapped(address):
    return address if address.version == 6 else ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def flow_element(name, family):
    return f"{name}IPv{family}Address" if name in ("source", "destination") else name


def encode_flow(flow):
    out = b""
    for name in FLOW_FIELDS:
        value = flow[name]
        out += value.packed if name in ("source", "destination") else value.to_bytes(FLOW[name][1], "big")
    return out


def flows_of(args):
    """The records of --input, or --records of our own: number i has 1000+i octets."""
    if args.input:
        with open(args.input, newline="") as file:
            for row in csv.DictReader(file):
                yield {name: ipaddress.ip_address(row[name]) if name in ("source", "destination") else int(row[name])
                       for name in FLOW_FIELDS}
        return
    for i in range(args.records):
        now = int(time.time() * 1000)
        yield dict(flowStartMilliseconds=now - 1000, flowEndMilliseconds=now,
                   source=ipaddress.ip_address(args.source), destination=ipaddress.ip_address(0x0A000000 + i),
                   sourceTransportPort=1024 + i % 60000, destinationTransportPort=443, protocolIdentifier=6,
                   octetDeltaCount=1000 + i, packetDeltaCount=1 + i % 10)


def parse_active(index, text):
    """A flow that is still going on: SOURCE=OCTETS."""
    source, octets = text.split("=")
    now = int(time.time() * 1000)
    address = ipaddress.ip_address(source)
    return dict(active=index, flowStartMilliseconds=now - 1000, flowEndMilliseconds=now, source=address,
                destination=ipaddress.ip_address("198.51.100.1" if address.version == 4 else "2001:db8:ffff::1"),
                sourceTransportPort=2000 + index, destinationTransportPort=80, protocolIdentifier=17,
                octetDeltaCount=int(octets), packetDeltaCount=1)


# ---------------------------------------------------------------- the Collecting Process

class Peer(Association):
    """One exporter's association with the collector."""

    def __init__(self, sock, address, number):
        super().__init__(sock, address)
        self.number, self.decoder = number, Decoder()
        self.instance, self.wants, self.answers = None, 0, 0
        self.pending = deque()   # [(octets, identity, resend)] to be made durable
        self.durable, self.told_at = 0, None
        self.pulls = set()
        self.sent_templates = False

    def name(self):
        certificate = self.sock.getpeercert() if isinstance(self.sock, ssl.SSLSocket) else None
        if certificate:
            return "/".join(value for rdn in certificate["subject"] for _, value in rdn)
        return self.peer


class Collector:
    ACKNOWLEDGEMENT, HELD_UP, PULL = 400, 401, 402

    def __init__(self, args):
        self.args, self.extension = args, Extension(args.enterprise)
        self.log = Log(args.journal)
        self.known = {}  # (exporter, instance, position): digest
        self.peers, self.number, self.stopping = [], 0, False
        self.stuck_since, self.reason = None, None
        for line in self.log.lines:
            self.number = max(self.number, line["association"])
            if line["identity"]:
                self.known[tuple(line["identity"])] = digest(bytes.fromhex(line["message"]))
        self.log.lines = []
        self.context = tls_context(args, server=True)
        host, port = args.listen.rsplit(":", 1)
        self.listener = socket.create_server((host, int(port)))
        self.listener.setblocking(False)
        say("listening", address="%s:%d" % self.listener.getsockname()[:2], known=len(self.known))

    def run(self):
        signal.signal(signal.SIGTERM, self.stop)
        commands = bytearray()
        stdin = [0]
        while not self.stopping:
            reading = [p for p in self.peers if len(p.pending) < WINDOW]
            writing = [p for p in self.peers if p.out]
            ready, _, _ = select.select([self.listener] + stdin + reading, writing, [], 0.05)
            if self.listener in ready:
                self.accept()
            if 0 in ready:
                octets = os.read(0, 4096)
                stdin = [0] if octets else []
                commands += octets
                while b"\n" in commands:
                    line, _, rest = bytes(commands).partition(b"\n")
                    commands = bytearray(rest)
                    self.command(line.decode().split())
            for peer in reading:
                self.guard(peer, self.receive, peer)
            self.commit()
            for peer in list(self.peers):
                self.guard(peer, peer.write)
                if peer.ended and not peer.pending and not peer.out:
                    self.drop(peer, "the exporter closed")
        self.finish()

    def stop(self, *_):
        self.stopping = True

    def accept(self):
        sock, address = self.listener.accept()
        try:
            if self.context:
                sock.settimeout(10)
                sock = self.context.wrap_socket(sock, server_side=True)
            self.number += 1
            self.peers.append(Peer(sock, address[0], self.number))
            say("accepted", association=self.number)
        except OSError as error:
            sock.close()
            say("refused", why=str(error))

    def guard(self, peer, do, *args):
        try:
            do(*args)
        except (OSError, ValueError) as error:
            self.drop(peer, str(error))

    def drop(self, peer, why):
        if peer in self.peers:
            self.peers.remove(peer)
            peer.close()
            say("ended", association=peer.number, why=why)

    def receive(self, peer):
        for octets in peer.read():
            records = peer.decoder.records(octets)
            identity, resend, answers = None, False, []
            for record in records:
                kind, values = self.extension.decode(record)
                if kind == "identity" and record.first:
                    identity = (peer.name(), values["exporterInstance"].hex(), values["messagePosition"])
                    if peer.instance is None and values["acknowledgementWants"] & WANTS_ACKNOWLEDGEMENT:
                        peer.instance = values["exporterInstance"]
                    peer.wants = values["acknowledgementWants"]
                elif kind == "pull answer":
                    answers.append(values)
            if identity:
                resend = self.known.get(identity) == digest(octets)
            peer.pending.append((octets, identity, resend, answers))

    def commit(self):
        """Makes durable what came, then says so: one Acknowledgement for many Messages."""
        now = time.monotonic()
        waiting = [p for p in self.peers if p.pending]
        if not waiting:
            return
        for peer in waiting:
            for octets, identity, resend, _ in peer.pending:
                if not resend:
                    self.log.add(association=peer.number, exporter=peer.name(), identity=identity,
                                 message=octets.hex())
        try:
            if self.args.full_while and os.path.exists(self.args.full_while):
                raise OSError(errno.ENOSPC, "the test's disk is full")
            self.log.sync()
        except OSError as error:
            self.log.waiting = b""
            self.stuck_since = self.stuck_since or now
            self.reason = DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else STORAGE_FAILS
            for peer in waiting:
                self.held_up(peer, now)
            time.sleep(0.02)
            return
        self.stuck_since = None
        for peer in waiting:
            positions = []
            for octets, identity, resend, answers in peer.pending:
                if identity:
                    self.known.setdefault(identity, digest(octets))
                    if peer.instance and identity[1] == peer.instance.hex():
                        positions.append(identity[2])
                for answer in answers:
                    if answer["pullRequest"] in peer.pulls:
                        peer.pulls.discard(answer["pullRequest"])
                        say("answered", request=answer["pullRequest"], time=answer["pullTime"],
                            result=RESULTS.get(answer["pullResult"], answer["pullResult"]))
            peer.pending.clear()
            peer.told_at = None
            if positions and peer.instance:
                self.acknowledge(peer, max(positions))

    def acknowledge(self, peer, position):
        peer.durable = max(peer.durable, position)
        body = self.extension.encode(("exporterInstance", peer.instance), ("acknowledgementVersion", VERSION),
                                     ("", int(time.time() * 1000).to_bytes(8, "big")), ("durablePosition", peer.durable))
        self.send(peer, self.ACKNOWLEDGEMENT, body)
        say("durable", association=peer.number, position=peer.durable)

    def held_up(self, peer, now):
        last = peer.told_at
        due = now - self.stuck_since >= HELD_UP_AFTER if last is None else now - last >= HELD_UP_AGAIN
        if due and peer.instance:
            peer.told_at = now
            self.send(peer, self.HELD_UP, self.extension.encode(
                ("exporterInstance", peer.instance), ("holdReason", self.reason)))
            say("held up", association=peer.number, reason=REASONS[self.reason])

    def command(self, words):
        """A line of standard input: pull ADDRESS[/LENGTH]"""
        if len(words) != 2 or words[0] != "pull":
            say("command not known", words=words)
            return
        prefix = ipaddress.ip_network(words[1], strict=False)
        length = prefix.prefixlen + (96 if prefix.version == 4 else 0)
        address = mapped(prefix.network_address).packed
        for peer in self.peers:
            if peer.wants & WANTS_PULLS:
                request = int.from_bytes(os.urandom(4), "big")
                peer.pulls.add(request)
                self.send(peer, self.PULL, self.extension.encode(
                    ("pullRequest", request), ("pullPrefixLength", length), ("pullAddress", address)))
                say("asked", association=peer.number, request=request)

    def send(self, peer, number, body):
        sets = []
        if not peer.sent_templates:
            e, peer.sent_templates = self.extension, True
            sets = [e.template(self.ACKNOWLEDGEMENT, ["exporterInstance"],
                               ["acknowledgementVersion", COLLECTION_TIME, "durablePosition"]),
                    e.template(self.HELD_UP, ["exporterInstance"], ["holdReason"]),
                    e.template(self.PULL, ["pullRequest"], ["pullPrefixLength", "pullAddress"])]
        peer.out += message(0, peer.answers, sets + [data_set(number, body)])
        peer.answers += 1

    def finish(self):
        """Stops: reads no more, acknowledges what it has, closes its end, waits for the exporter's."""
        self.listener.close()
        self.commit()
        until = time.monotonic() + 5
        for peer in list(self.peers):
            self.guard(peer, peer.write)
            self.guard(peer, peer.finish)
        while self.peers and time.monotonic() < until:
            for peer in select.select(self.peers, [], [], 0.1)[0]:
                self.guard(peer, peer.read)  # what comes now is sent again elsewhere
                if peer.ended:
                    self.drop(peer, "stopped")
        say("stopped", known=len(self.known))


def digest(octets):
    return hashlib.sha256(content_of(octets)).hexdigest()


# ---------------------------------------------------------------- what a journal holds

def list_journal(args):
    """Prints as one JSON object what a journal holds by identity, each Message once."""
    extension, decoders, held, given_up = Extension(args.enterprise), {}, {}, {}
    out = dict(messages=0, unidentified=0, conflicts=0, records=0, octets=0, flows=[])
    for line in read_lines(args.journal)[0]:
        octets = bytes.fromhex(line["message"])
        records = decoders.setdefault(line["association"], Decoder()).records(octets)
        identity = tuple(line["identity"] or ())
        if identity:
            if held.setdefault(identity, digest(octets)) != digest(octets):
                out["conflicts"] += 1
            out["messages"] += 1
        elif records:
            out["unidentified"] += 1
        index = 0
        for record in records:
            kind, values = extension.decode(record)
            if kind == "given up" and identity:
                key = identity[:2]
                given_up[(*key, values["messagePosition"], values["lastMessagePosition"])] = values["givenUpRecords"]
            if kind or record.template.options:
                continue
            flow = dict(identity=identity, index=index)
            for (enterprise, number), value in record.values:
                name = FLOW_NAMES.get(number) if not enterprise else None
                if name and name.endswith("Address"):
                    flow[name] = str(ipaddress.ip_address(value))
                elif name:
                    flow[name] = int.from_bytes(value, "big")
            index += 1
            out["records"] += 1
            out["octets"] += flow.get("octetDeltaCount", 0)
            out["flows"].append(flow)
    out["lost"] = sum(records for (exporter, instance, first, last), records in given_up.items()
                      if not (first == last and (exporter, instance, first) in held))
    print(json.dumps(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="send flow records and keep them until they are acknowledged")
    export.add_argument("--to", required=True, metavar="HOST:PORT[,HOST:PORT]")
    export.add_argument("--spool", required=True, metavar="DIR")
    export.add_argument("--input", metavar="FILE", help="CSV with the columns " + ",".join(FLOW_FIELDS))
    export.add_argument("--records", type=int, default=0, metavar="N", help="make N records of 1000, 1001 ... octets")
    export.add_argument("--source", default="192.0.2.7", metavar="ADDRESS", help="source of the records made")
    export.add_argument("--per-message", type=int, default=20, metavar="N")
    export.add_argument("--pace", type=int, default=0, metavar="MS", help="at least so long between two Messages")
    export.add_argument("--keep", type=int, default=1 << 20, metavar="N", help="room in the spool, in Messages")
    export.add_argument("--when-full", choices=["block", "drop"], default="block")
    export.add_argument("--active", action="append", default=[], metavar="ADDRESS=OCTETS",
                        help="a flow going on: exported when pulled, or when the input ends")
    export.add_argument("--linger", action="store_true", help="stay when all is acknowledged")
    export.add_argument("--domain", type=int, default=1, metavar="ID", help="Observation Domain")
    collect = commands.add_parser("collect", help="journal Messages and acknowledge them")
    collect.add_argument("--listen", required=True, metavar="HOST:PORT")
    collect.add_argument("--full-while", metavar="FILE", help="behave as on a full disk while FILE is there")
    listing = commands.add_parser("list", help="print what a journal holds")
    for command in (collect, listing):
        command.add_argument("--journal", required=True, metavar="FILE")
    for command in (export, collect, listing):
        command.add_argument("--enterprise", type=int, default=32473, metavar="NUMBER")
    for command in (export, collect):
        for name in ("--cert", "--key", "--ca"):
            command.add_argument(name, metavar="FILE", help="PEM; with them it is TLS")
    args = parser.parse_args()
    if args.command == "export":
        Exporter(args).run()
    elif args.command == "collect":
        Collector(args).run()
    else:
        list_journal(args)


if __name__ == "__main__":
    sys.exit(main())
