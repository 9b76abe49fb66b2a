"""A bucket for ArrayRecord's own client, which finds it by the environment.

It speaks as much of the JSON API of Cloud Storage as reading an object takes
(cloud.google.com/storage/docs/json_api/v1/objects/get), over HTTP on this
machine.
"""

import http.server
import re
import threading
import urllib.parse

WHERE = "CLOUD_STORAGE_EMULATOR_ENDPOINT"  # of Google's C++ client


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, request, client_address):
    """Nothing: the client leaves when it has what it wants of a range."""


class Bucket:
  """A folder as gs://bucket.

  Attributes:
    requests: (name of the object, its range as asked for), in order.
  """

  def __init__(self, folder):
    """Serves it until `close`."""
    self.requests = []
    bucket = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def log_message(self, *args):
        pass

      def do_GET(self):
        path = urllib.parse.urlparse(self.path).path
        name = urllib.parse.unquote(
          re.fullmatch(r".*/b/bucket/o/(.+)", path)[1]
        )
        asked = self.headers.get("range", "")
        bucket.requests.append((name, asked))
        data = (folder / name).read_bytes()
        first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", asked).groups()
        if first:
          start, end = int(first), int(last or len(data) - 1) + 1
        else:
          start, end = max(0, len(data) - int(last)), len(data)
        part = data[start:end]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        whole = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        self.send_header("Content-Range", whole)
        self.end_headers()
        self.wfile.write(part)

    self._server = _Server(("127.0.0.1", 0), Handler)
    self.address = f"http://127.0.0.1:{self._server.server_port}"
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def close(self):
    """Ends it."""
    self._server.shutdown()
    self._server.server_close()
