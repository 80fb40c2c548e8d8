"""Publishes over TLS and with an account, by one connection, and says how it went.

Prints one JSON line: {"code": the CONNACK's reason or null, "acknowledged": n, "error": text or null}. paho gives the
codes of MQTT 3.1.1 by their names in MQTT 5: 134 is a bad user name or password, 135 not authorised.
"""

import argparse
import json
import threading

import paho.mqtt.client as mqtt

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--protocol", choices=["311", "5"], default="311")
parser.add_argument("--messages", type=int, default=1)
parser.add_argument("--qos", type=int, default=1)
parser.add_argument("--topic", default="plant/press-1")
parser.add_argument("--client-id", default="paho-secure")
parser.add_argument("--ca-file")
parser.add_argument("--cert-file")
parser.add_argument("--key-file")
parser.add_argument("--username")
parser.add_argument("--password-file")
parser.add_argument("--deadline", type=float, default=60)
args = parser.parse_args()

outcome = {"code": None, "acknowledged": 0, "error": None}
answered, done = threading.Event(), threading.Event()


def on_connect(client, userdata, flags, reason_code, properties):
    outcome["code"] = reason_code.value
    answered.set()


def on_publish(client, userdata, mid, reason_code, properties):
    outcome["acknowledged"] += 1
    if outcome["acknowledged"] == args.messages:
        done.set()


def on_disconnect(client, userdata, flags, reason_code, properties):
    outcome["error"] = str(reason_code)
    answered.set()


version = mqtt.MQTTv5 if args.protocol == "5" else mqtt.MQTTv311
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=args.client_id, protocol=version, reconnect_on_failure=False)
client.on_connect, client.on_publish, client.on_disconnect = on_connect, on_publish, on_disconnect
client.max_inflight_messages_set(100)
if args.ca_file:
    client.tls_set(ca_certs=args.ca_file, certfile=args.cert_file, keyfile=args.key_file)
if args.username:
    with open(args.password_file) as file:
        client.username_pw_set(args.username, file.read().rstrip("\n"))
try:
    client.connect("127.0.0.1", args.port, keepalive=30)
    client.loop_start()
    answered.wait(args.deadline)
    if outcome["code"] == 0:
        for number in range(1, args.messages + 1):
            client.publish(args.topic, json.dumps({"seq": number, "temperature": 20.5}), qos=args.qos)
        done.wait(args.deadline)
        outcome["error"] = None
except OSError as error:
    outcome["error"] = str(error)
print(json.dumps(outcome), flush=True)
client.disconnect()
client.loop_stop()
