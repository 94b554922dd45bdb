"""A server of the tests that listens nowhere itself: another process, which is no child of it, takes its port.

    python -m tests.bench.forward PORT TARGET
"""

import signal
import subprocess
import sys

LISTENER = """
import socket, sys, threading
def copy(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.settimeout(20)
client, _ = listener.accept()
server = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
threading.Thread(target=copy, args=(client, server), daemon=True).start()
copy(server, client)
"""


def main():
    """Start the other process so that its parent is gone, and wait to be killed."""
    command = 'nohup "$0" -c "$1" "$2" "$3" >/dev/null 2>&1 &'
    subprocess.run(["sh", "-c", command, sys.executable, LISTENER, *sys.argv[1:]], check=True)
    signal.pause()


if __name__ == "__main__":
    main()
