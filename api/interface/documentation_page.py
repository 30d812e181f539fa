"""Documentation page: Swagger UI for `/openapi.json`, served from this package, so that it works without a network.

`swagger_ui/` holds files of the package swagger-ui-dist 5.35.0 (Apache-2.0; its LICENSE and NOTICE lie beside them).
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response

_FOLDER = Path(__file__).parent / "swagger_ui"
_MEDIA_TYPES: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
# Nothing is loaded from elsewhere and nothing is inline. Swagger UI loads some icons from data URLs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "public, max-age=3600",
}
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tokenpost API</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<noscript>This page needs JavaScript. The same description is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = b"""window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  persistAuthorization: false,
});
"""
_STYLE = b"body { margin: 0; } noscript { display: block; padding: 2rem; font-family: sans-serif; }\n"


def page_response() -> Response:
    """The page itself."""
    return Response(_PAGE, headers=_HEADERS, media_type="text/html")


def find_file(name: str) -> Response | None:
    """A file that the page loads; None for any other name."""
    media_type = _MEDIA_TYPES.get(name)
    if media_type is None:
        return None
    return Response(_content_of(name), headers={**_HEADERS, "content-type": media_type})


@lru_cache
def _content_of(name: str) -> bytes:
    own = {"start.js": _START, "page.css": _STYLE}
    return own[name] if name in own else (_FOLDER / name).read_bytes()
