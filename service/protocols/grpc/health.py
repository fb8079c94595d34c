"""``grpc.health.v1.Health``: what probes ask that speak gRPC."""

from service.protocols.grpc import health_pb2 as messages
from service.protocols.grpc.calls import Message, Method
from service.protocols.own.health import readiness
from service.web.services import Services


def _check(services: Services, _request: Message, _deadline: float) -> Message:
    """Say whether the service can answer now; all that it serves can, or nothing."""
    ready = readiness(services)[0] == "ready"
    return messages.HealthCheckResponse(status="SERVING" if ready else "NOT_SERVING")


SERVICES = {"grpc.health.v1.Health": {"Check": Method(messages.HealthCheckRequest, _check)}}
