# Opens a connection every 10 ms to the targets in turn and prints a line for each: milliseconds, target, ok or the reason.
import socket, sys, threading, time

seconds, targets = float(sys.argv[1]), sys.argv[2:]
begin, lock = time.monotonic(), threading.Lock()

def ask(target):
    at = time.monotonic() - begin
    try:
        host, port = target.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"GET /client HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
        result = "ok" if b"200 OK" in answer else "cut short"
    except OSError as error:
        result = str(error)
    with lock:
        print(f"{at * 1000:.0f} {target} {result}", flush=True)

number = 0
while (now := time.monotonic() - begin) < seconds:
    threading.Thread(target=ask, args=(targets[number % len(targets)],)).start()
    number += 1
    time.sleep(max(0, number * 0.01 - (time.monotonic() - begin)))
