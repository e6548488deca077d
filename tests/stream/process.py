"""What the tests kill: `write` appends impressions and feedback and prints the numbers that are acknowledged; `join` joins them."""

from __future__ import annotations

import sys
from pathlib import Path

from prerank.stream import Client, Feedback, Impression, Joiner, Tick, Waiting, encode, open_log

BEGIN = 1_700_000_000_000


def write(url: str, first: str, count: str) -> None:
    """Each number is an impression, every third is clicked; once in a while a message is poison, or sent twice."""
    with Client(url, batch=40) as client:
        for n in range(int(first), int(first) + int(count)):
            ts = BEGIN + n * 100
            client.send(Impression(request=f"r{n // 5}", user=n % 17, item=n, ts=ts, features={"number": n}))
            if n % 3 == 0:
                client.send(Feedback(request=f"r{n // 5}", item=n, ts=ts + 1000, kind="click"))
            if n % 50 == 0:
                client.send_message(b"poison", b"r%d" % (n // 5))
            if n % 7 == 0:
                client.send(Impression(request=f"r{n // 5}", user=n % 17, item=n, ts=ts, features={"number": n}))
            if n % 20 == 19:
                client.flush()
                print(*range(n - 19 if n - 19 >= int(first) else int(first), n + 1), sep="\n", flush=True)
        client.flush()
        for p in range(client.log.partitions):
            client.log.append([encode(Tick(ts=BEGIN + (int(first) + int(count)) * 100 + 60_000))], partition=p)


def join(events: str, rows: str, dead: str, folder: str, until: str) -> None:
    """Until it is killed, or ("drain") until all is read after the file `go` is there."""
    joiner = Joiner(open_log(events), open_log(rows), Waiting(kinds={"click": "10s"}), folder, dead=open_log(dead), every=0.05, ttl=0.3)
    go = Path(folder) / "go"
    while len(joiner.parts) < 4 or joiner.counts()["rows"] == 0:
        joiner.step(0.01)
    print("ready", flush=True)
    joiner.run(lambda: until == "drain" and go.exists() and joiner.at_end(), say=lambda line: print(line, file=sys.stderr))


if __name__ == "__main__":
    {"write": write, "join": join}[sys.argv[1]](*sys.argv[2:])
