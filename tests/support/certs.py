"""Certificates for the tests: a throw-away authority, a server and a client certificate."""

import ssl

import trustme


class Certs:
    """An authority with one server certificate for localhost and one client certificate."""

    def __init__(self, directory):
        authority = trustme.CA(organization_name="gunicorn-h2 tests")
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


def _write_chain(cert, path):
    with open(path, "wb") as file:
        for pem in cert.cert_chain_pems:
            file.write(pem.bytes())
