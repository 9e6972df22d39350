"""Publishing events to an MQTT broker."""

from __future__ import annotations

import ssl
import threading
import time
import urllib.parse
from typing import Any

from ..errors import MissingDependencyError, UsageError
from ..installation import install_command

PORTS = {"mqtt": 1883, "mqtts": 8883}  # the usual port of each scheme


class MqttPublisher:
    """Publishes each event to a topic as JSON, with quality of service 1 (at least once).

    Args:
        url: The address `mqtt://host:port/topic`, or `mqtts://...` for TLS, with user and password if needed.

    Raises:
        MissingDependencyError: paho-mqtt is not installed.
        UsageError: The topic is missing or has wildcards.
    """

    def __init__(self, url: urllib.parse.SplitResult) -> None:
        try:
            import paho.mqtt.client as mqtt
        except ImportError as error:
            raise MissingDependencyError(f"MQTT needs paho-mqtt; run: {install_command('mqtt')}") from error
        self._topic = urllib.parse.unquote(url.path.strip("/"))
        if not self._topic or {"#", "+"} & set(self._topic):
            raise UsageError("an MQTT address is mqtt://host/topic, with a topic without # and +")
        self._connected = threading.Event()
        self._problem = "no connection to the broker"
        self._client: Any = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if url.username is not None:
            password = None if url.password is None else urllib.parse.unquote(url.password)
            self._client.username_pw_set(urllib.parse.unquote(url.username), password)
        if url.scheme == "mqtts":
            self._client.tls_set_context(ssl.create_default_context())
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *arguments: self._connected.clear()
        self._client.reconnect_delay_set(1, 30)
        assert url.hostname is not None
        self._client.connect_async(url.hostname, url.port or PORTS[url.scheme])
        self._client.loop_start()

    def send(self, payload: bytes, timeout: float) -> None:
        """Publish one event and wait for the broker's confirmation. See `Carrier.send`."""
        end = time.monotonic() + timeout
        if not self._connected.wait(timeout):
            raise OSError(self._problem)
        message = self._client.publish(self._topic, payload, qos=1)
        try:
            message.wait_for_publish(max(end - time.monotonic(), 0.1))
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error
        if not message.is_published():
            raise OSError("the broker does not confirm it")

    def close(self) -> None:
        """Close the connection and end its thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._problem = f"the broker refuses: {reason}"
        else:
            self._connected.set()
