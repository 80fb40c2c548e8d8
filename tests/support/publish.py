"""Publishes numbered readings at QoS 1 or 2 from one persistent session and ends when all are acknowledged.

Prints one JSON line: {"sent": n, "acknowledged": n}. The client library resends what was not acknowledged when a
connection breaks, under the same packet id and with DUP set.
"""

import argparse
import json
import secrets
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--client-id", default="paho-publisher")
parser.add_argument("--messages", type=int, required=True)
parser.add_argument("--window", type=int, default=100, help="messages not yet acknowledged")
parser.add_argument("--topic", default="plant/press-1")
parser.add_argument("--first", type=int, default=1)
parser.add_argument("--rate", type=float, default=0, help="messages a second; 0: as fast as the window allows")
parser.add_argument("--qos", type=int, choices=[1, 2], default=1)
parser.add_argument("--mqtt-version", type=int, choices=[4, 5], default=4, help="4 is 3.1.1")
parser.add_argument("--reconnect", type=float, default=1, help="seconds before each attempt to connect again")
parser.add_argument("--noise", type=int, default=0, help="bytes in each message that no compression makes much smaller")
parser.add_argument("--deadline", type=float, default=240)
args = parser.parse_args()

# Ids that wait for their acknowledgement, and ids acknowledged before publish() gave us their name.
pending, early = set(), set()
changed = threading.Condition()


class Client(mqtt.Client):
    """Keeps a message that the receiver has (PUBREC) released, however often connecting again fails.

    paho-mqtt 2.2 puts its messages into a state to be sent again at each attempt to connect. The second attempt takes one
    that waits for its release to be repeated for one that was never received, and publishes it again. If the receiver has
    completed the release, it can't tell that from a new message (MQTT 3.1.1, 4.3.3: the sender must not do this).
    """

    def _messages_reconnect_reset_out(self):
        released = [m for m in self._out_messages.values() if m.state == mqtt.mqtt_ms_resend_pubrel]
        super()._messages_reconnect_reset_out()
        for message in released:
            message.state = mqtt.mqtt_ms_resend_pubrel


def on_publish(client, userdata, mid, reason_code, properties):
    with changed:
        if mid in pending:
            pending.remove(mid)
        else:
            early.add(mid)
        changed.notify()


if args.mqtt_version == 5:
    client = Client(mqtt.CallbackAPIVersion.VERSION2, client_id=args.client_id, protocol=mqtt.MQTTv5)
    persistent = Properties(PacketTypes.CONNECT)
    persistent.SessionExpiryInterval = 3600
    session = {"clean_start": False, "properties": persistent}
else:
    client = Client(mqtt.CallbackAPIVersion.VERSION2, client_id=args.client_id, clean_session=False)
    session = {}
client.on_publish = on_publish
client.max_inflight_messages_set(args.window)
client.reconnect_delay_set(min_delay=args.reconnect, max_delay=args.reconnect)
client.keepalive = 10
deadline = time.monotonic() + args.deadline
while True:
    try:
        client.connect("127.0.0.1", args.port, keepalive=10, **session)
        break
    except OSError:
        if time.monotonic() > deadline:
            sys.exit("no connection")
        time.sleep(0.1)
client.loop_start()

done = 0
started = time.monotonic()
for number in range(args.first, args.first + args.messages):
    if args.rate:
        time.sleep(max(0, started + (number - args.first) / args.rate - time.monotonic()))
    values = {"seq": number, "temperature": round(20 + number % 100 / 10, 1)}
    if args.noise:
        values["noise"] = secrets.token_urlsafe(args.noise)[: args.noise]
    payload = json.dumps(values)
    with changed:
        # Twice the window waits in the client; the library itself keeps no more than the window on the wire.
        changed.wait_for(lambda: len(pending) < 2 * args.window, timeout=max(0.1, deadline - time.monotonic()))
    # Not under our lock: the library calls back under one of its own.
    mid = client.publish(args.topic, payload, qos=args.qos).mid
    with changed:
        if mid in early:
            early.remove(mid)
        else:
            pending.add(mid)
    done += 1
    if time.monotonic() > deadline:
        break
with changed:
    changed.wait_for(lambda: not pending, timeout=max(0.1, deadline - time.monotonic()))
print(json.dumps({"sent": done, "acknowledged": done - len(pending)}), flush=True)
client.loop_stop()
client.disconnect()
