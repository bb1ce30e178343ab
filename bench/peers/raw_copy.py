"""CSV files into PostgreSQL by one COPY in one transaction: no parsing, no check, no marker.

python raw_copy.py URL FILE ...
"""

from __future__ import annotations

import sys

import psycopg

BLOCK = 1 << 18


def main() -> None:
    url, *files = sys.argv[1:]
    with psycopg.connect(url) as con, con.cursor() as cursor:
        for name in files:
            with cursor.copy("COPY events FROM STDIN (FORMAT csv, HEADER)") as copy, open(name, "rb") as file:
                while block := file.read(BLOCK):
                    copy.write(block)


if __name__ == "__main__":
    main()
