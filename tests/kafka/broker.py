"""A real Apache Kafka for tests: one broker in KRaft mode on free ports, its jars fetched once by Maven.

It has a plain listener and one with TLS and SCRAM, and can be killed and started again on its own data.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from .certificates import make_certificates

HERE = Path(__file__).parent
CACHE = Path(sys.prefix) / "kafka"
"""Inside the environment, so `make clean` removes it."""
START_SECONDS = 60.0
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"
USER, PASSWORD = "alice", "alice-secret"
HEAP = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]


def libraries() -> Path:
    """The folder of the broker's jars; they are fetched where they are missing."""
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / "libs"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = CACHE / "libs.part"
            shutil.rmtree(part, ignore_errors=True)
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={part}", "-DincludeScope=runtime"]
            subprocess.run(["mvn", "-B", "-q", "-f", HERE / "pom.xml", *goal], check=True)
            part.rename(folder)
    return folder


@dataclass(frozen=True)
class Sent:
    """One record as another program sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int


class Broker:
    """A throwaway broker that is also its own controller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._libs = libraries()
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None
        self.port, self.secure_port, self._control = _free_ports(3)
        self.certificates = make_certificates(folder / "certificates")
        (folder / "server.properties").write_text(self._properties(), encoding="utf-8")
        user = f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"
        self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties", "--add-scram", user)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def secure_address(self) -> str:
        return f"localhost:{self.secure_port}"

    def start(self) -> None:
        """The broker answers after this."""
        archive = CACHE / "classes.jsa"
        made = self.folder / "classes.jsa"
        sharing = f"-XX:SharedArchiveFile={archive}" if archive.exists() else f"-XX:ArchiveClassesAtExit={made}"
        command = ["java", *HEAP, sharing, "-Xlog:cds=off", "-Xlog:cds+dynamic=off", "-cp", f"{self._libs}/*"]
        with (self.folder / "log").open("ab") as log:
            call = [*_die_with_parent(), *command, "kafka.Kafka", "server.properties"]
            self._process = subprocess.Popen(call, cwd=self.folder, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text(errors="replace")[-4000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        # A socket first: a client would wait and complain.
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.5).close()
        except OSError:
            return False
        try:
            return bool(self.admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def kill(self) -> None:
        """The broker is gone after this, as by a power cut; its data stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """The broker has shut down in order."""
        self._end(signal.SIGTERM)
        made = self.folder / "classes.jsa"
        if made.exists():
            shutil.copy(made, CACHE / "classes.part")
            (CACHE / "classes.part").rename(CACHE / "classes.jsa")

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """For instance SIGSTOP, to play a broker that hangs."""
        assert self._process is not None
        self._process.send_signal(number)

    # What tests do as another program.

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        return self._admin

    def create(self, topic: str, partitions: int = 1, **config: Any) -> None:
        """The topic is there after this, with settings such as cleanup_policy="compact"."""
        settings = {name.replace("_", "."): str(value) for name, value in config.items()}
        for made in self.admin.create_topics([NewTopic(topic, partitions, 1, config=settings)]).values():
            made.result(30)
        self.wait_for(topic, partitions)

    def wait_for(self, topic: str, partitions: int) -> None:
        """Every client sees so many partitions, each with a leader."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            known = self.admin.list_topics(topic, timeout=10).topics[topic]
            if len(known.partitions) == partitions and all(p.leader >= 0 for p in known.partitions.values()):
                return
            time.sleep(0.02)
        raise AssertionError(f"{topic} never had {partitions} partitions")

    def delete(self, topic: str) -> None:
        for gone in self.admin.delete_topics([topic]).values():
            gone.result(30)
        until = time.monotonic() + 30
        while topic in self.admin.list_topics(timeout=10).topics:
            assert time.monotonic() < until
            time.sleep(0.02)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Records before the offset are gone, as by retention."""
        for gone in self.admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            gone.result(30)

    def settle(self, topic: str) -> None:
        """Every transaction that ended has its marker after this; the cluster writes it a moment after it says so."""
        until = time.monotonic() + 30
        numbers = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in numbers}
        while True:
            levels = (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
            asks = [self.admin.list_offsets(asked, isolation_level=level) for level in levels]
            ends = [{at.partition: made.result(30).offset for at, made in ask.items()} for ask in asks]
            if ends[0] == ends[1]:
                return
            assert time.monotonic() < until
            time.sleep(0.02)

    def producer(self, **config: Any) -> Producer:
        settings = {name.replace("_", "."): value for name, value in config.items()}
        return Producer({"bootstrap.servers": self.address, "log_level": 0, "linger.ms": 1, **settings})

    def send(self, topic: str, values: Iterable[Any], partition: int = 0, **config: Any) -> None:
        """Values, or dicts with value, key, headers, timestamp, partition; acknowledged after this."""
        producer = self.producer(**config)
        failed: list[Any] = []
        for item in values:
            given = item if isinstance(item, dict) else {"value": item}
            producer.produce(
                topic, on_delivery=lambda e, m: failed.append(e) if e else None, **{"partition": partition, **given}
            )
        producer.flush(60)
        assert not failed, failed

    def read(self, topic: str, isolation: str = "read_committed") -> list[Sent]:
        """Every record of the topic, by partition and offset."""
        known = self.admin.list_topics(topic, timeout=10).topics[topic]
        settings = {"bootstrap.servers": self.address, "group.id": "test", "isolation.level": isolation}
        more = {"enable.partition.eof": True, "enable.auto.commit": False, "fetch.wait.max.ms": 10, "log_level": 0}
        consumer = Consumer({**settings, **more})
        found: list[Sent] = []
        try:
            partitions = list(known.partitions if known.error is None else ())
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            found += _until_end(consumer, len(partitions))
        finally:
            consumer.close()
        return sorted(found, key=lambda r: (r.partition, r.offset))

    def values(self, topic: str, isolation: str = "read_committed") -> list[bytes | None]:
        return [record.value for record in self.read(topic, isolation)]

    # How it is made.

    def _java(self, program: str, *arguments: str) -> None:
        command: Sequence[Any] = ["java", "-Xmx128m", "-cp", f"{self._libs}/*", program, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _properties(self) -> str:
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._control}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},SECURE://127.0.0.1:{self.secure_port},"
            f"CONTROLLER://127.0.0.1:{self._control}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port},SECURE://localhost:{self.secure_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL",
            "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.secure.scram-sha-256.sasl.jaas.config": f"{module} required;",
            "listener.name.secure.ssl.keystore.type": "PEM",
            "listener.name.secure.ssl.keystore.location": str(self.certificates / "server.pem"),
            "log.dirs": str(self.folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed may come back at once.
            "broker.session.timeout.ms": "1000",
            "broker.heartbeat.interval.ms": "200",
            "auto.create.topics.enable": "false",
            "log.cleaner.dedupe.buffer.size": "2097152",
            "log.cleaner.backoff.ms": "200",
            "log.initial.task.delay.ms": "200",
            "log.retention.ms": "-1",
            "log.retention.check.interval.ms": "200",
            "log.segment.delete.delay.ms": "100",
            "num.network.threads": "2",
            "num.io.threads": "2",
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def _until_end(consumer: Consumer, partitions: int) -> list[Sent]:
    found: list[Sent] = []
    until = time.monotonic() + 60
    while partitions:
        message = consumer.poll(1)
        assert time.monotonic() < until, "the end of a partition was not reached"
        if message is None:
            continue
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", message.error()
            partitions -= 1
            continue
        headers = tuple(message.headers() or ())
        place = (message.partition(), message.offset())
        found.append(Sent(*place, message.key(), message.value(), headers, message.timestamp()[1]))
    return found


def _die_with_parent() -> list[str]:
    """Words before a command by which the kernel kills it when the tests are killed, where there is such a program."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()


__all__ = ["PASSWORD", "USER", "Broker", "Sent", "libraries"]
