"""The messages and stubs of interop.proto: `pb` and `rpc`, as files of grpcio-tools would have them."""

import grpc

pb, rpc = grpc.protos_and_services("tests/grpc/interop.proto")
