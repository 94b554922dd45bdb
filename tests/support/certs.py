"""Certificates for the tests: a throw-away authority, a server and a client certificate."""

import ssl

import trustme


class Certs:
    """An authority with one server certificate for localhost and one client certificate."""

    def __init__(self, directory):
        self.authority = authority = trustme.CA(organization_name="gunicorn-h2 tests")
        server = authority.issue_cert("localhost", "127.0.0.1", common_name="localhost")
        client = authority.issue_cert("alice@example.org", common_name="alice")
        self.ca = str(directory / "ca.pem")
        self.server_cert = str(directory / "server.pem")
        self.server_key = str(directory / "server.key")
        self.client_cert = str(directory / "client.pem")
        authority.cert_pem.write_to_path(self.ca)
        server.private_key_pem.write_to_path(self.server_key)
        _write_chain(server, self.server_cert)
        client.private_key_and_cert_chain_pem.write_to_path(self.client_cert)

    def client_context(self, alpn=("h2",), client_cert=False):
        """Return a client's TLS context that trusts the authority and offers ``alpn``."""
        context = ssl.create_default_context(cafile=self.ca)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if client_cert:
            context.load_cert_chain(self.client_cert)
        return context


class LiveCertificate:
    """A certificate in Let's Encrypt's layout: symbolic links in `live`, to files with numbers in `archive`."""

    def __init__(self, directory, authority, *names):
        self._authority, self.names, self._number, self.der = authority, names or ("localhost", "127.0.0.1"), 0, None
        self._name = self.names[0].removeprefix("*.")
        self._archive, self._live = directory / "archive" / self._name, directory / "live" / self._name
        self._archive.mkdir(parents=True)
        self._live.mkdir(parents=True)
        self.certificate, self.key = str(self._live / "fullchain.pem"), str(self._live / "privkey.pem")
        self.renew()

    def issue(self):
        """Write the files of the next certificate, to which nothing leads yet."""
        self._number += 1
        issued = self._authority.issue_cert(*self.names)
        issued.private_key_pem.write_to_path(self._archive / f"privkey{self._number}.pem")
        _write_chain(issued, self._archive / f"fullchain{self._number}.pem")
        self.der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    def link(self, name):
        """Have "fullchain" or "privkey" lead to the newest file."""
        link = self._live / f"{name}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{self._name}/{name}{self._number}.pem")

    def renew(self):
        """Issue the next certificate and have the links lead to it; return it in DER."""
        self.issue()
        self.link("privkey")
        self.link("fullchain")
        return self.der


def _write_chain(cert, path):
    with open(path, "wb") as file:
        for pem in cert.cert_chain_pems:
            file.write(pem.bytes())
