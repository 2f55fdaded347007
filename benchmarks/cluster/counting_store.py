"""moto's S3 server in a process of its own, which counts the requests that it answers.

    python -m benchmarks.cluster.counting_store

prints its URL. A GET of /requests returns the counts by method as JSON.
"""

import json
import threading
from collections import Counter
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class Quiet(MotoRequestHandler):
    """Prints nothing of a request."""

    def log(self, *_: object) -> None:
        """Print nothing."""


def main() -> None:
    """Serve until killed."""
    app, counts, lock = DomainDispatcherApplication(create_backend_app), Counter[str](), threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/requests":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(counts).encode()]
        method = environ["REQUEST_METHOD"]
        if method == "GET" and "list-type" in environ.get("QUERY_STRING", ""):
            method = "LIST"
        with lock:
            counts[method] += 1
        return app(environ, start_response)

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
