"""What the Flight SQL drivers of others do, against a gateway that holds 1,000 readings of the sensor "s"."""

import argparse
import datetime
import json
import subprocess
import time

import adbc_driver_flightsql.dbapi as adbc
import pyarrow.ipc
import pyarrow.flight as flight

parser = argparse.ArgumentParser()
parser.add_argument("--uri", required=True)
parser.add_argument("--token", default="")
parser.add_argument("--ca-file", help="talk TLS, and believe whom this authority signed for")
parser.add_argument("--limits", action="store_true", help="only ask for too much")
parser.add_argument("--daemon", required=True, help="its process, whose engine is killed on the way")
args = parser.parse_args()

options = {"username": "anyone", "password": args.token} if args.token else {}
tls = {}
if args.ca_file:
    authority = open(args.ca_file).read()
    tls = {"tls_root_certs": authority}
    options["adbc.flight.sql.client_option.tls_root_certs"] = authority
found = {}


def fault(cursor, sql, parameters=None):
    """What is said against a statement."""
    try:
        cursor.execute(sql, parameters=parameters)
        cursor.fetchall()
        return None
    except adbc.Error as error:
        return str(error)


if args.limits:
    with adbc.connect(args.uri, db_kwargs=options) as connection, connection.cursor() as cursor:
        found["too_slow"] = fault(cursor, "select sum(sqrt(a.range * b.range)) from range(1000000) a, range(1000000) b")
        found["too_long"] = fault(cursor, "select repeat('x', 1000) || range from range(1000000)")
        found["denied"] = fault(cursor, "drop table books")
        # It costs the connection nothing.
        cursor.execute("select 1")
        found["after"] = cursor.fetchone()[0]
    print(json.dumps(found))
    raise SystemExit

with adbc.connect(args.uri, db_kwargs=options) as connection:
    with connection.cursor() as cursor:
        cursor.execute("select count(*) as n, max(value) as top from readings")
        found["plain"] = [cursor.fetchone(), [column[0] for column in cursor.description]]
        # The same cursor again: what falls back from prepared statements works once.
        cursor.execute("select count(*) from readings where value >= ? and sensor = ?", parameters=[990, "s"])
        found["bound"] = cursor.fetchone()[0]
        cursor.execute("select count(*) from readings where time < ?", parameters=[datetime.datetime(2023, 11, 14, 22, 13, 30)])
        found["bound_time"] = cursor.fetchone()[0]
        # As JDBC does, which is told that parameters are texts.
        cursor.execute("select count(*) from readings where value >= ? and time >= ?", parameters=["990", "2023-11-14 22:13:20"])
        found["bound_text"] = cursor.fetchone()[0]
        cursor.execute("select time, sensor, metric, value from readings order by seq")
        table = cursor.fetch_arrow_table()
        found["arrow"] = [table.num_rows, [str(column.type) for column in table.schema]]
        found["wrong"] = fault(cursor, "select * from nowhere")
        found["unbound"] = fault(cursor, "select ? + ?", [1])
    with connection.cursor() as cursor:
        statement = "select count(*) from readings where value < ?"
        cursor.adbc_prepare(statement)
        subprocess.run(["pkill", "-KILL", "-P", args.daemon], check=True)
        found["outlived"], end = None, time.monotonic() + 60
        while found["outlived"] is None and time.monotonic() < end:
            try:
                # It is not prepared again.
                cursor.execute(statement, parameters=[10])
                found["outlived"] = cursor.fetchone()[0]
            except adbc.Error as error:
                found["meanwhile"] = str(error)
                time.sleep(0.1)
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    found["objects"] = [
        [catalog["catalog_name"], schema["db_schema_name"], table["table_name"], len(table["table_columns"])]
        for catalog in objects
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    ]
    found["table_types"] = connection.adbc_get_table_types()
    found["table_schema"] = [field.name for field in connection.adbc_get_table_schema("readings")]
    found["vendor"] = connection.adbc_get_info()["vendor_name"]
    # A name with all that the catalog says before it must work.
    with connection.cursor() as cursor:
        catalog, schema, table, _ = next(entry for entry in found["objects"] if entry[2] == "readings")
        cursor.execute(f'select count(*) from "{catalog}"."{schema}"."{table}"')
        found["qualified"] = cursor.fetchone()[0]

client = flight.FlightClient(args.uri, **tls)
call = flight.FlightCallOptions()
if args.token:
    call = flight.FlightCallOptions(headers=[client.authenticate_basic_token(b"anyone", args.token.encode())])


def field(number, value):
    """A field of a protobuf message: a text, or a truth value."""
    if isinstance(value, bool):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def any_of(name, body=b""):
    """google.protobuf.Any of a Flight SQL message."""
    url = f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()
    return field(1, url) + (field(2, body) if body else b"")


def ask(name, body=b""):
    """What is told of an answer, and the answer."""
    info = client.get_flight_info(flight.FlightDescriptor.for_command(any_of(name, body)), call)
    (endpoint,) = info.endpoints
    assert not endpoint.locations, endpoint
    answer = client.do_get(endpoint.ticket, call).read_all()
    # Drivers compare them, to the last "not null".
    assert answer.schema.equals(info.schema), (info.schema, answer.schema)
    return answer


# Without preparing, as Grafana's plugin does; then the metadata that it and JDBC ask for.
sql = b"select value from readings where sensor = 's' order by seq limit 3"
found["statement"] = ask("CommandStatementQuery", field(1, sql)).to_pydict()
found["info"] = ask("CommandGetSqlInfo").column("info_name").to_pylist()
found["base_tables"] = ask("CommandGetTables", field(4, b"BASE TABLE")).column("table_name").to_pylist()
columns = ask("CommandGetTables", field(3, b"readings") + field(5, True)).column("table_schema")[0].as_py()
found["columns"] = pyarrow.ipc.read_schema(pyarrow.py_buffer(columns)).names
found["views"] = ask("CommandGetTables", field(4, b"VIEW")).num_rows
found["catalogs"] = ask("CommandGetCatalogs").to_pydict()
found["schemas"] = ask("CommandGetDbSchemas").to_pydict()
found["types"] = ask("CommandGetXdbcTypeInfo").column("type_name").to_pylist()
descriptor = flight.FlightDescriptor.for_command(any_of("CommandStatementQuery", field(1, sql)))
found["schema"] = client.get_schema(descriptor, call).schema.names
try:
    flight.FlightClient(args.uri, **tls).get_flight_info(descriptor)
    found["without_token"] = "answered"
except flight.FlightUnauthenticatedError:
    found["without_token"] = "refused"
print(json.dumps(found, default=str))
