"""gRPC services beside a WSGI or ASGI application, on the worker classes of this package.

    from gunicorn_h2.grpc import GrpcWSGI

    app.wsgi_app = services = GrpcWSGI(app.wsgi_app)
    greeter_pb2_grpc.add_GreeterServicer_to_server(Greeter(), services)

`GrpcWSGI` and `GrpcASGI` offer what generated code and the standard servicers (health, reflection) need of a
`grpc.Server`: `add_generic_rpc_handlers` and `add_registered_method_handlers`. Of grpcio only Python classes are used,
none of its threads. The wire format is that of PROTOCOL-HTTP2.md of the gRPC project.
"""

try:
    import grpc as _grpc  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("gunicorn_h2.grpc needs grpcio: pip install 'gunicorn-h2[grpc]'", name="grpc") from error

from .asgi import GrpcASGI
from .wsgi import GrpcWSGI

__all__ = ["GrpcASGI", "GrpcWSGI"]
