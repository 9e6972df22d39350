"""Events are published to a real MQTT broker."""

import json
import shutil
import socket
import subprocess
import threading
import time

import pytest
from delivering import make_event
from synthetic_sources import wait_until

from vmp_edge.errors import MissingDependencyError
from vmp_edge.events.sinks import Delivery, open_sink


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_broker(folder, port):
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        pytest.skip("needs a broker: apt install mosquitto")
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    process.kill()
    pytest.fail("mosquitto does not listen")


class Subscriber:
    """Collects what is published to a topic."""

    def __init__(self, port, topic):
        mqtt = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt, the extra `mqtt`")
        self.received, self.ready = [], threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *rest: client.subscribe(topic, qos=1)
        self.client.on_subscribe = lambda *rest: self.ready.set()
        self.client.on_message = lambda client, data, message: self.received.append(json.loads(message.payload))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.ready.wait(timeout=60)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def mqtt():
    return pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt, the extra `mqtt`")


def test_events_are_published_to_a_broker_also_after_it_was_away(tmp_path, mqtt):
    port, messages = free_port(), []
    # The broker comes up after the sink: a device may be switched on before its server.
    sink = open_sink(f"mqtt://127.0.0.1:{port}/home/camera", messages.append, Delivery(timeout=30.0, flush=30.0))
    sink.put(make_event(1))
    broker = start_broker(tmp_path, port)
    try:
        wait_until(lambda: sink.sent == 1)
        subscriber = Subscriber(port, "home/#")
        for number in (2, 3):
            sink.put(make_event(number))
        wait_until(lambda: len(subscriber.received) == 2)
        subscriber.close()
        broker.terminate()
        broker.wait()
        wait_until(lambda: not sink._carrier._connected.is_set())
        sink.put(make_event(4))
        broker = start_broker(tmp_path, port)
        wait_until(lambda: sink.sent == 4)
        sink.close()
    finally:
        broker.kill()
        broker.wait()
    assert subscriber.received == [make_event(number).to_dict() for number in (2, 3)]
    assert (sink.dropped, sink.failed, messages) == (0, 0, [])


def test_a_missing_broker_is_reported_and_closing_does_not_hang(mqtt):
    messages = []
    sink = open_sink(
        f"mqtt://u:secret@127.0.0.1:{free_port()}/a", messages.append, Delivery(tries=1, timeout=0.2, flush=0.2)
    )
    sink.put(make_event(1))
    sink.close()
    assert (
        "no connection" in messages[0]
        and messages[-1].startswith("1 of 1 events")
        and "secret" not in "".join(messages)
    )


def test_mqtt_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "paho.mqtt.client", None)
    with pytest.raises(MissingDependencyError, match=r"\[mqtt\]"):
        open_sink("mqtt://host/a", print)
