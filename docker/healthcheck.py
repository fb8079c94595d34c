"""Exit 0 when the service says that it is ready, and 1 with the reason when it says anything else, or nothing."""

import http.client
import os
import sys


def main() -> int:
    """Ask the service on this machine once; Docker gives the time limit, this one is below it."""
    port = os.environ.get("ADMIN_PORT") or os.environ.get("PORT") or 8000
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=2.5)
    try:
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"/health/ready gives no answer: {error}")
        return 1
    print(f"/health/ready answers {status}")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
