"""The protocols of the other servers over gRPC, on the same calls as over HTTP; only imported where GRPC_PORT is set.

The messages are described in ``*.proto``; ``make protos`` makes ``*_pb2.py`` of them.
"""
