"""A server that forks the fake worker without importing anything: `forking_fake.py [thread] FD`."""

import sys
import threading

from tests.search import fake_worker
from timellm.fork_server import serve


def work(arguments: list[str]) -> int:
    sys.argv[1:] = arguments
    return fake_worker.main()


if "thread" in sys.argv:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
sys.exit(serve(int(sys.argv[-1]), (), work))
