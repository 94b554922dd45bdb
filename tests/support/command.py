"""Running Gunicorn's command, or ours, exactly as a user would: with a conf file and arguments."""

import os
import ssl
import subprocess

import httpx

from tests.support.server import BOOT_TIMEOUT, ROOT, Server

APP = "tests.apps.wsgi_app:app"

# What every run of the tests needs and no test is about. Unknown settings do no harm in a conf file.
CONF = """\
bind = "127.0.0.1:0"
threads = 4
control_socket_disable = True

def post_worker_init(worker):
    worker.log.info("worker is ready")

"""


class Command(Server):
    """A master process started by a command line of the test's own."""

    ready = "worker is ready"
    """What a worker logs when it can be stopped again: Gunicorn loses a signal that comes earlier."""

    def __init__(self, directory, certs, *arguments, conf=CONF, module="gunicorn_h2.cli", env=None, app=APP):
        super().__init__(directory, None, certs, flags=arguments, env={"TMPDIR": str(directory), **(env or {})})
        self.conf, self.module, self.app = conf, module, app

    def write_conf(self, *_, **__):
        """Write the conf file as it is."""
        (self.directory / "conf.py").write_text(self.conf, encoding="utf-8")

    @property
    def command(self):
        """The command line; an argument -c stands before the one of the test, which therefore wins."""
        return [self.python, "-m", self.module, "-c", str(self.directory / "conf.py"), *self.flags, self.app]

    def start(self, timeout=BOOT_TIMEOUT):
        """Start the master and return once a worker can serve."""
        self.launch()
        try:
            address = self.wait_log(r"Listening at: (\S+)", timeout=timeout)[1]
            self.tls = address.startswith("https")
            self.port = None if address.startswith("unix") else int(address.rpartition(":")[2])
            self.wait_log(self.ready, timeout=timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def hang_up(self):
        """Send SIGHUP and return once the old worker has gone and a new one can serve."""
        mark, old = self.log_mark(), self.worker_pid
        self.signal(1)
        self.wait_log(self.ready, after=mark)
        self.wait_log(rf"Worker exiting \(pid: {old}\)", after=mark)

    def run(self, timeout=30):
        """Run the command to its end; return the finished process, its output as text."""
        self.write_conf()
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.directory), str(ROOT)]), **self.env}
        return subprocess.run(self.command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


def fetch(server, path="/", http2=True, ca=None, uds=None):
    """Make one request by HTTP/2 alone, or HTTP/1.1 alone; return the response."""
    context = ssl.create_default_context(cafile=ca or server.certs.ca)
    transport = httpx.HTTPTransport(http1=not http2, http2=http2, verify=context, uds=uds)
    scheme = "https" if server.tls else "http"
    authority = "localhost" if uds else f"localhost:{server.port}"
    with httpx.Client(transport=transport, timeout=20) as client:
        response = client.get(f"{scheme}://{authority}{path}")
    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    return response
