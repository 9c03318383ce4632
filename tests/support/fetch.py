"""Gets what the tests need and a wheel cannot bring, before they run: so no test's time limit covers a download.

Run as a module, it says what it found.
"""

from tests.support.chromium import NoBrowserError, find_chromium
from tests.support.servers import mysql, redis
from tests.support.servers.base import NoServerError

NEEDED = (
    ("browser", find_chromium),
    ("MariaDB", mysql.program),
    ("Redis", lambda: redis.binary("redis")),
    ("Valkey", lambda: redis.binary("valkey")),
)

if __name__ == "__main__":
    for name, find in NEEDED:
        try:
            print(f"{name}:", find())
        except (NoBrowserError, NoServerError) as problem:
            print(f"no {name}:", problem)
