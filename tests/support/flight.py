"""What the Flight SQL drivers of others do, against a gateway that holds 1,000 readings of the sensor "s"."""

import argparse
import datetime
import json

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as adbc
import pyarrow.flight as flight

parser = argparse.ArgumentParser()
parser.add_argument("--uri", required=True)
parser.add_argument("--token", default="")
args = parser.parse_args()

options = {"username": "anyone", "password": args.token} if args.token else {}
found = {}
with adbc.connect(args.uri, db_kwargs=options) as connection:
    with connection.cursor() as cursor:
        cursor.execute("select count(*) as n, max(value) as top from readings")
        found["plain"] = [cursor.fetchone(), [column[0] for column in cursor.description]]
        # The same cursor again: what falls back from prepared statements works once.
        cursor.execute("select count(*) from readings where value >= ? and sensor = ?", parameters=[990, "s"])
        found["bound"] = cursor.fetchone()[0]
        cursor.execute("select count(*) from readings where time < ?", parameters=[datetime.datetime(2023, 11, 14, 22, 13, 30)])
        found["bound_time"] = cursor.fetchone()[0]
        cursor.execute("select time, sensor, metric, value from readings order by seq")
        table = cursor.fetch_arrow_table()
        found["arrow"] = [table.num_rows, [str(column.type) for column in table.schema]]
        try:
            cursor.execute("select * from nowhere")
            cursor.fetchall()
            found["wrong"] = None
        except adbc.Error as error:
            found["wrong"] = str(error)
        try:
            cursor.execute("select ? + ?", parameters=[1])
            cursor.fetchall()
            found["unbound"] = None
        except adbc.Error as error:
            found["unbound"] = str(error)
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

client = flight.FlightClient(args.uri.replace("grpc://", "grpc+tcp://"))
call = flight.FlightCallOptions()
if args.token:
    call = flight.FlightCallOptions(headers=[client.authenticate_basic_token(b"anyone", args.token.encode())])


def any_of(name, body=b""):
    """google.protobuf.Any of a Flight SQL message."""
    url = f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()
    parts = b"\x0a" + bytes([len(url)]) + url
    return parts + (b"\x12" + bytes([len(body)]) + body if body else b"")


sql = b"select value from readings where sensor = 's' order by seq limit 3"
descriptor = flight.FlightDescriptor.for_command(any_of("CommandStatementQuery", b"\x0a" + bytes([len(sql)]) + sql))
info = client.get_flight_info(descriptor, call)
found["flight"] = [len(info.endpoints), len(info.endpoints[0].locations), info.schema.names]
found["flight_rows"] = client.do_get(info.endpoints[0].ticket, call).read_all().to_pydict()["value"]
found["flight_schema"] = client.get_schema(descriptor, call).schema.names
try:
    flight.FlightClient(args.uri.replace("grpc://", "grpc+tcp://")).get_flight_info(descriptor)
    found["without_token"] = "answered"
except flight.FlightUnauthenticatedError:
    found["without_token"] = "refused"
print(json.dumps(found, default=str))
