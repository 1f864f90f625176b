#!/usr/bin/env python3
"""One operation, carried out once: pay.py KEY BODY_JSON [PATH]. Prints the final body.
API and API_KEY say where and as whom; PATIENCE (60) is how many seconds it may take in all.
Exits 0 done, 2 declined, 3 refused, 4 unknown: come back later with the same KEY and BODY_JSON."""
import http.client, os, random, sys, threading, time, urllib.parse

key, body, path = sys.argv[1], os.fsencode(sys.argv[2]), (sys.argv[3:] or ["/v1/payments"])[0]
api, authorization = urllib.parse.urlsplit(os.environ["API"]), "Bearer " + os.environ["API_KEY"]
connect = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[api.scheme]
headers = {"Authorization": authorization, "Idempotency-Key": key, "Content-Type": "application/json"}
end, pause, wait, doubt = time.monotonic() + float(os.environ.get("PATIENCE", 60)), 0.5, 0, False

def attempt(told):  # http.client, because urllib follows a redirect and makes a GET of a POST
    connection = connect(api.netloc, timeout=15)
    connection.request("POST", api.path.rstrip("/") + path, body, headers)
    answer = connection.getresponse()
    told.append((answer.status, answer.getheader("Retry-After", ""), answer.read()))

threading.excepthook = lambda failure: print("no answer:", failure.exc_value, file=sys.stderr)
while time.monotonic() + wait < end:
    time.sleep(wait)
    told = [(0, "", b"")]
    thread = threading.Thread(target=attempt, args=[told], daemon=True)
    thread.start()  # a thread, because the timeout of a connection is one for each read
    thread.join(max(0, min(end - time.monotonic(), 15)))
    status, after, text = told[-1]
    in_progress = status == 409 and b'"request_in_progress"' in text
    if not (in_progress or status in (0, 202, 429) or status >= 500):
        sys.stdout.buffer.write(text + b"\n")
        sys.exit(0 if status in (200, 201) else 2 if status == 402 else 4 if doubt else 3)
    doubt = doubt or status != 429  # after a 429 nothing has begun
    wait = (int(after) if after.isdecimal() else 0) + random.uniform(pause / 2, pause)
    pause = min(pause * 2, 8)
print("unknown: it may have been carried out", file=sys.stderr)
sys.exit(4)
