"""A browsable page of the API at `/docs`, and the document itself at `/openapi.json`.

Works without the internet: Swagger UI comes from a wheel and is served from here, under a content
security policy that allows nothing else.
"""

from __future__ import annotations

import html
from importlib import resources
from typing import Any

from litestar import Request, Response, Router, get
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.params import FromPath

from voicethere.adapters.http.errors import not_found

DOCS_PATH = "/docs"
OPENAPI_PATH = "/openapi.json"

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": _CSP, "referrer-policy": "no-referrer"}

_ASSET_TYPES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}

_START = """\
window.addEventListener("load", function () {
  window.ui = SwaggerUIBundle({
    url: document.getElementById("swagger-ui").dataset.url,
    dom_id: "#swagger-ui",
    deepLinking: true,
    persistAuthorization: false,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis]
  });
});
"""

# No operation has links; without their column, and with each answer below its code, examples can be read on
# a phone.
_STYLE = """\
body { margin: 0; }
.swagger-ui .responses-table .response-col_links { display: none; }
@media (max-width: 600px) {
  .swagger-ui .wrapper, .swagger-ui .scheme-container { padding-left: 8px; padding-right: 8px; }
  .swagger-ui .responses-inner { padding: 12px; }
  .swagger-ui .responses-table thead { display: none; }
  .swagger-ui .responses-table tr, .swagger-ui .responses-table td { display: block; width: auto; }
  .swagger-ui .responses-table .response-col_status { font-weight: bold; }
  .swagger-ui .responses-table .response-col_description { padding: 0 0 16px; }
}
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<style>
{style}</style>
</head>
<body>
<div id="swagger-ui" data-url="/openapi.json"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start.js"></script>
</body>
</html>
"""


class DocsPage(OpenAPIRenderPlugin):
    """Litestar asks this plugin for the HTML of the page."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        title = str(openapi_schema.get("info", {}).get("title", "API"))
        return _PAGE.format(title=html.escape(title), style=_STYLE).encode()


def docs_router() -> Router:
    """The router under which Litestar puts the page; it holds the page's assets."""

    @get("/assets/{name:str}", sync_to_thread=False, include_in_schema=False)
    def asset(name: FromPath[str]) -> Response[bytes]:
        if name == "start.js":
            return _asset_response(_START.encode(), "text/javascript; charset=utf-8")
        media_type = _ASSET_TYPES.get(name)
        if media_type is None:
            raise not_found("file")
        vendor = resources.files("swagger_ui") / "static"
        return _asset_response((vendor / name).read_bytes(), media_type)

    return Router(DOCS_PATH, route_handlers=[asset], include_in_schema=False, response_headers=_HEADERS)


def _asset_response(content: bytes, media_type: str) -> Response[bytes]:
    return Response(content, media_type=media_type, headers={"cache-control": "public, max-age=3600"})


@get(OPENAPI_PATH, sync_to_thread=False, include_in_schema=False)
def openapi_document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of this app."""
    return request.app.openapi_schema.to_schema()
