"""Tells schemathesis how Arrow and Parquet are sent and read: as bytes, whatever they are."""

import schemathesis

BINARY = ("application/vnd.apache.arrow.stream", "application/vnd.apache.parquet")


@schemathesis.serializer(*BINARY)
def send(context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@schemathesis.deserializer(*BINARY)
def read(context, response):
    return response.content.decode("latin-1")
