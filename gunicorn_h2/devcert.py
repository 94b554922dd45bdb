"""A certificate for development on one's own machine.

Browsers and most clients speak HTTP/2 over TLS only, so trying a server needs a certificate. This one is signed by
an authority made for it alone. Both are in a private directory that is removed when the server ends. It is not
for production: only the developer has a reason to trust it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

__all__ = ["SUBJECT", "DevelopmentCertificate", "DevelopmentCertificateError"]

SUBJECT = "gunicorn_h2 development certificate"
NAMES = ("localhost", "127.0.0.1", "::1")


class DevelopmentCertificateError(RuntimeError):
    """The certificate cannot be made; the message says what to do instead."""


class DevelopmentCertificate:
    """A certificate, its key and its authority, in PEM files that are removed when the owning process ends.

    Raises `DevelopmentCertificateError` if trustme, which makes it, is not installed.
    """

    def __init__(self, uid: int, gid: int) -> None:
        """Make the files, readable by `uid` only: workers read them after they have dropped root privileges."""
        self._owner = os.getpid()
        self._directory = tempfile.mkdtemp(prefix="gunicorn-h2-")
        atexit.register(self._remove)
        self.certfile = os.path.join(self._directory, "cert.pem")
        self.keyfile = os.path.join(self._directory, "key.pem")
        self.authority = os.path.join(self._directory, "ca.pem")
        self._write()
        for path in (self.certfile, self.keyfile, self.authority):
            os.chmod(path, 0o600)
        if os.geteuid() == 0:
            for path in (self._directory, self.certfile, self.keyfile, self.authority):
                os.chown(path, uid, gid)

    def adopt(self) -> None:
        """Make this process the owner: a daemon's master is a fork of the process that made the files."""
        self._owner = os.getpid()

    def _write(self) -> None:
        try:
            import trustme  # an extra, which a configured certificate makes unnecessary
        except ImportError:
            raise DevelopmentCertificateError(
                "no certificate is configured, and trustme, which makes one for development, is not installed: "
                "pip install 'gunicorn-h2[devcert]', or give --certfile and --keyfile, or, behind a proxy that "
                "ends TLS, --http2-cleartext prior-knowledge"
            ) from None
        authority = trustme.CA(organization_name=SUBJECT, organization_unit_name="authority")
        leaf = authority.issue_cert(*NAMES, organization_name=SUBJECT, organization_unit_name="server")
        authority.cert_pem.write_to_path(self.authority)
        leaf.private_key_pem.write_to_path(self.keyfile)
        for append, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(self.certfile, append=bool(append))

    def _remove(self) -> None:
        # Workers are forks of the owner, and call this at their exit as well.
        if os.getpid() == self._owner:
            shutil.rmtree(self._directory, ignore_errors=True)
