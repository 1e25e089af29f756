"""The span of a request for scores: in the trace of its caller, where the request names that."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.tracing import HEADER, TRACING


def traced(route: Route) -> Route:
    """The route, with each of its requests within a span; only where traces are on."""

    async def answer(request: Request) -> Response:
        told = {"http.request.method": request.method, "http.route": route.path}
        name, caller = f"{request.method} {route.path}", request.headers.get(HEADER)
        with TRACING.span(name, "SERVER", parent=caller, attributes=told) as span:
            response: Response = await route.endpoint(request)
            span.set_attribute("http.response.status_code", response.status_code)
        return response

    return Route(route.path, answer, methods=sorted(route.methods or ()))
